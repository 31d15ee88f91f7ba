"""Download the model's files into the Hugging Face cache; runs on the builder, while it is provisioned.

    python -m prefetch /opt/bake/weights.json < SECRETS

`weights.json` holds what is wanted: repository, revision, each file with its bytes and its sha256 or git blob
id, the cache, and the volume that it must lie on. One JSON document on stdin holds what must not be on a
disk: the token, and the mirror's signed addresses. Progress and the result are JSON lines on stdout.

huggingface_hub's own download deletes an unfinished file when it fails and checks no hash, so what is used
of it is the way to the Hub; the cache that results is laid out as its own. Killed at any moment and started
again, it goes on where it was. The snapshot appears in the cache at once, when every byte of it has been
hashed and is on the disk: before that nothing finds a model there.
"""
