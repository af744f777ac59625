import pytest
from plate_normalize import PlateNormalize

from flowengine import Reject
from flowengine.testing import FlowError, make, message, process


@pytest.mark.parametrize("read", ["京A12345", "京A·12345", "京a 12345", "京Ａ１２３４５", " 京A-12345\n"])
def test_however_it_is_written_it_is_one_plate(read: str) -> None:
    (out,) = process(make(PlateNormalize), message({"plate": read}))
    assert out.meta["plate"] == "京A12345"
    assert out.payload == {"plate": read}


@pytest.mark.parametrize("read", ["粤B1234挂", "沪AD12345", "粤Z1234港"])
def test_trailers_electric_cars_and_cars_from_hong_kong_have_plates_too(read: str) -> None:
    (out,) = process(make(PlateNormalize), message({"plate": read}))
    assert out.meta["plate"] == read


@pytest.mark.parametrize("read", ["", "A12345", "京I1234O", "京A123", "no plate", 12345, None])
def test_what_is_no_plate_is_refused(read: object) -> None:
    with pytest.raises(Reject):
        process(make(PlateNormalize), message({"plate": read}))


def test_a_message_without_a_plate_is_refused_with_the_path() -> None:
    with pytest.raises(Reject, match=r"'car\.plate' is missing"):
        process(make(PlateNormalize, "car.plate"), message({"car": {}}))


def test_a_slip_in_the_flow_file_is_an_error_with_a_hint() -> None:
    with pytest.raises(FlowError, match="unknown option 'fild', did you mean 'field'"):
        make(PlateNormalize, "{fild: plate}")
