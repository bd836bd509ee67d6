"""Records that no Python client writes: header names that are not UTF-8."""

from __future__ import annotations

import ctypes

import confluent_kafka.cimpl

# rd_kafka_vtype_t, and RD_KAFKA_MSG_F_COPY
_END, _TOPIC, _VALUE, _FLAGS, _HEADERS = 0, 1, 4, 6, 10
_COPY = 2


def put_with_header(servers: str, topic: str, value: bytes, name: bytes) -> None:
    """Write a value under a header with that name, through librdkafka itself."""
    library = ctypes.CDLL(confluent_kafka.cimpl.__file__)
    for function in ("rd_kafka_conf_new", "rd_kafka_new", "rd_kafka_headers_new"):
        getattr(library, function).restype = ctypes.c_void_p
    text = ctypes.create_string_buffer(512)
    conf = ctypes.c_void_p(library.rd_kafka_conf_new())
    for option, setting in ((b"bootstrap.servers", servers.encode()), (b"log_level", b"0")):
        assert library.rd_kafka_conf_set(conf, option, setting, text, 512) == 0, text.value
    handle = ctypes.c_void_p(library.rd_kafka_new(0, conf, text, 512))
    headers = ctypes.c_void_p(library.rd_kafka_headers_new(1))
    library.rd_kafka_header_add(headers, name, ctypes.c_ssize_t(len(name)), b"x", ctypes.c_ssize_t(1))
    sent = library.rd_kafka_producev(
        handle,
        *(ctypes.c_int(_TOPIC), topic.encode()),
        *(ctypes.c_int(_VALUE), ctypes.c_char_p(value), ctypes.c_size_t(len(value))),
        *(ctypes.c_int(_FLAGS), ctypes.c_int(_COPY)),
        *(ctypes.c_int(_HEADERS), headers),
        ctypes.c_int(_END),
    )
    assert sent == 0
    assert library.rd_kafka_flush(handle, 30_000) == 0
    library.rd_kafka_destroy(handle)
