"""A request to the Hub that cannot be built is blamed on the setting; the error shows no secret."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import pytest
from pydantic import SecretStr
from werkzeug.serving import make_server

from bake.errors import BakeError, UsageError
from bake.localcloud import Hub
from bake.localcloud.hub.server import REVISION
from bake.profile.weights import Weights
from bake.weights import hub as weights_hub
from bake.weights import lock as locks

pytestmark = pytest.mark.integration
CANARY = "hf_canary"


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    server = make_server("127.0.0.1", 0, Hub(tmp_path_factory.mktemp("hub"), CANARY), threaded=True)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.fixture(autouse=True)
def _online(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)


def unchecked(token: str) -> Weights:
    """Weights that nothing has looked at: the second net must hold where the first has a hole."""
    return Weights.model_construct(repo="a/b", revision=REVISION, token=SecretStr(token))


@pytest.mark.parametrize(
    "token",
    [f"{CANARY}\n", f"{CANARY}\x00", f"{CANARY} ", f"{CANARY}\r\nX: y", f"{CANARY}\u200b", "\udcff" + CANARY],
    ids=ascii,
)
def test_a_header_that_cannot_be_made_blames_the_token(hub: str, token: str) -> None:
    with pytest.raises(UsageError) as caught:
        locks.resolve(unchecked(token), hub)
    message = f"{caught.value.message}{caught.value.hint}"
    assert message.startswith("weights.token: no request can be made with this token (")
    assert "reached" not in message and "canary" not in message


@pytest.mark.parametrize(
    "endpoint", ["nonsense", "ftp://example.org", "http://", "http://x\n.org"], ids=ascii
)
def test_an_address_that_no_request_goes_to_is_named(endpoint: str) -> None:
    with pytest.raises(UsageError, match="HF_ENDPOINT: the Hub's address is not valid") as caught:
        locks.resolve(unchecked(CANARY), endpoint)
    assert "reached" not in caught.value.message


def test_a_hub_that_is_not_there_is_still_a_fault_of_the_network() -> None:
    with pytest.raises(BakeError, match="the Hub can't be reached: ConnectError") as caught:
        locks.resolve(unchecked(CANARY), "http://127.0.0.1:9")
    assert not isinstance(caught.value, UsageError)


def test_a_page_that_is_no_text_is_no_hub() -> None:
    error = UnicodeDecodeError("utf-8", b"\xff", 0, 1, "canary")
    found = weights_hub.refusal(error)
    assert found is not None and found.text == "the answer is not the Hub's"


def test_what_the_hubs_library_wraps_is_found(tmp_path: Path) -> None:
    import httpx2

    outer = OSError("wrapped")
    outer.__cause__ = httpx2.LocalProtocolError(f"Illegal header value b'Bearer {CANARY}'")
    found = weights_hub.refusal(outer)
    assert found is not None and found.setting == "weights.token"
    assert "canary" not in f"{found.text}{found.hint}"
