"""How fast flowengine is beside what people use instead, measured in turn on one machine. See README.md here."""
