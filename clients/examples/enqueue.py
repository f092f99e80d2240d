"""Enqueues an event for herald from Python, with pika: persistent, routed and confirmed, or an exception.

    AMQP_URL=amqp://… python enqueue.py SESSION PARTNER
"""
import json, os, sys, uuid
import pika

connection = pika.BlockingConnection(pika.URLParameters(os.environ["AMQP_URL"]))
channel = connection.channel()
channel.confirm_delivery()  # without it a lost message looks like a sent one
event = {"id": str(uuid.uuid4()), "sessionId": sys.argv[1], "partnerId": sys.argv[2], "event": "partner.advanced", "data": {"toStage": 3}}
exchange = os.environ.get("HERALD_BROKER__PREFIX", "herald") + ".events"
properties = pika.BasicProperties(content_type="application/json", delivery_mode=pika.DeliveryMode.Persistent.value)
channel.basic_publish(exchange, event["event"], json.dumps(event).encode(), properties, mandatory=True)
connection.close()
print(event["id"])
