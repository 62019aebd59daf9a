"""A reader of what Weights & Biases writes without a network, for the tests of trackers and of searches."""


def wandb_records(run):
    """(kind, record) of the one offline run in a run folder: a LevelDB log of messages that W&B's own package defines.

    After 7 bytes come blocks of 32 KiB with pieces of records, each behind 4 bytes of CRC, 2 of length and 1 that says
    whether it is a whole record, the first piece, one in the middle or the last.
    """
    from wandb.proto import wandb_internal_pb2

    (file,) = (run / "wandb").glob("offline-run-*/run-*.wandb")
    content, at, record = file.read_bytes(), 7, b""
    while at + 7 <= len(content):
        if (left := 32768 - at % 32768) < 7:
            at += left
            continue
        size, piece = int.from_bytes(content[at + 4 : at + 6], "little"), content[at + 6]
        record = content[at + 7 : at + 7 + size] if piece in (1, 2) else record + content[at + 7 : at + 7 + size]
        at += 7 + size
        if piece in (1, 4):
            found = wandb_internal_pb2.Record.FromString(record)
            yield found.WhichOneof("record_type"), found
