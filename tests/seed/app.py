# The script of the seed, laid out again as its author wrote it; nothing in it is mended. See README.md in this folder.
#
# Changed, so that a test can run it on free ports and with the installed paho:
#   1. `import os`, and MQTT_HOST, MQTT_PORT, BACKEND_URL and LISTEN_PORT from the environment, with the script's own
#      values as defaults.
#   2. `mqtt.Client()` is given `mqtt.CallbackAPIVersion.VERSION1`: the callbacks are those of paho 1, and paho 2 asks
#      for it to be said.
#
# 作者 陈老师
# https://v.iiar.cn
import json
import os
from datetime import datetime
import paho.mqtt.client as mqtt
import requests
from flask import Flask, request

app = Flask(__name__)

# MQTT配置
mq_broker = os.environ.get("MQTT_HOST", "127.0.0.1")  # MQTT测试服务器
mq_port = int(os.environ.get("MQTT_PORT", 1883))  # 非加密端口
sb = '123456789'  # 我的设备号
zt = f'fungxi_{sb}_downLink'  # 发给设备
zt2 = f'fungxi_{sb}_upLink'  # 设备上报


def http_post(data):  # 接收mqtt回调的api
    url = os.environ.get("BACKEND_URL", "http://127.0.0.1:6688/api/user/mqtt_msg")
    try:
        res = requests.post(url, json=data)
        print(res.text)
    except Exception as e:
        print(e)


# MQTT连接回调函数
def on_connect(client, userdata, flags, rc):
    if rc == 0:
        client.subscribe(zt)
        client.subscribe(zt2)
        print("MQTT连接成功")
    else:
        print(f"MQTT连接失败,返回码:{rc}")


# 处理接收到的MQTT消息
def on_message(client, userdata, msg):
    mqtt_message = msg.payload.decode()  # 解析MQTT消息
    try:
        data = json.loads(mqtt_message)
    except json.JSONDecodeError:
        print("无效的JSON数据")
        return
    if msg.topic == zt:
        if data['cmd'] == 'heartD':
            return
        print('发给设备', mqtt_message)
    elif msg.topic == zt2:
        if data['cmd'] == 'heartU':
            bot_heartbeat()
            return
        elif data['cmd'] == 'strangerRecordU':  # 陌生人
            return
        elif data['cmd'] == 'verifiedRecordU':  # 人脸库的
            # http_post(['data'])
            check_successfully(data['data'])
        print('设备上报', mqtt_message)


# 连接MQTT服务器
mq = mqtt.Client(mqtt.CallbackAPIVersion.VERSION1)
mq.on_connect = on_connect
mq.on_message = on_message
mq.connect(mq_broker, mq_port, 60)
# 启动MQTT客户端线程
mq.loop_start()


def send_mqtt_msg(text):
    mq.publish(zt, text)


# 机器返回心跳
def bot_heartbeat():
    r = {
        "cmd": "heartD",
        "time": datetime.now().strftime("%Y-%m-%d %H:%M:%S")
    }
    t = json.dumps(r)
    send_mqtt_msg(t)


def check_successfully(data):
    data = data[0]
    user_id = data['num']  # 用户id
    name = data['name']  # 用户名
    img = data['liveImageBase64']  # 扫脸图片
    verifiedCode = data['verifiedCode']  # 识别状态
    bot_time = data['time']  # 机器里识别时间
    personType = data['personType']
    if personType == '1' and verifiedCode == 0:  # 通过
        pass
    send_data = {
        'user_id': user_id,
        'name': name,
        'img': img,
        'verifiedCode': verifiedCode,
        'bot_time': bot_time,
        'personType': personType
    }
    # print(bot_time)
    http_post(send_data)


@app.route('/', methods=['POST'])
def index():
    data = request.json
    print('给机器发消息', data)
    t = json.dumps(data)
    t = json.loads(t)
    send_mqtt_msg(t)
    return 'ok'


# 调试模式运行
if __name__ == '__main__':
    # debug=True,
    app.run(port=int(os.environ.get("LISTEN_PORT", 6699)), host='0.0.0.0')

# 安装依赖
# pip install -r requirements.txt

# 导出依赖库
# pip freeze > requirements.txt
