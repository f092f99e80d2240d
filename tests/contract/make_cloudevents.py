"""Makes messages with the official CloudEvents package.

Standard input: a JSON list of {mode, event}; standard output: a list of {contentType, headers, body}, in that order.
"""

import json
import sys
from datetime import datetime
from urllib.parse import unquote

from cloudevents.core.bindings import amqp, http, rabbitmq
from cloudevents.core.v1.event import CloudEvent


def from_http(message):
    """From the HTTP binding to herald's: the prefix, and no percent-encoding."""
    headers = {name.lower(): value for name, value in message.headers.items()}
    content_type = headers.pop("content-type", None)
    renamed = {"cloudEvents_" + name.removeprefix("ce-"): unquote(value) for name, value in headers.items()}
    return content_type, renamed, message.body


def from_amqp(message):
    return message.properties.get("content-type"), message.application_properties, message.application_data


def from_rabbitmq(message):
    return message.content_type, message.headers, message.body


MODES = {
    "structured": lambda event: from_http(http.to_structured_event(event)),
    "binary": lambda event: from_http(http.to_binary_event(event)),
    # The package's own bindings: AMQP 1.0, where times are milliseconds, and Knative's for RabbitMQ, with another prefix.
    "binary_amqp": lambda event: from_amqp(amqp.to_binary_event(event)),
    "binary_rabbitmq": lambda event: from_rabbitmq(rabbitmq.to_binary_event(event)),
}


def made(mode, event):
    data = event.pop("data", None)
    if "time" in event:
        event["time"] = datetime.fromisoformat(event["time"].replace("Z", "+00:00"))
    content_type, headers, body = MODES[mode](CloudEvent({"specversion": "1.0", **event}, data))
    return {"contentType": content_type, "headers": headers, "body": body.decode()}


print(json.dumps([made(**one) for one in json.load(sys.stdin)]))
