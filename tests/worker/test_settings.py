"""Settings come from the environment, and all that is wrong is said at once (R-CONFIG)."""

from __future__ import annotations

from pathlib import Path

import pytest

from flux_worker.errors import ConfigurationError
from flux_worker.settings import ModelSettings, ServeSettings

REVISION = "3de623fc3c33e44ffbe2bad470d0f45bccf2eb21"
GOOD = {
    "AWS_REGION": "eu-west-1",
    "FLUX_QUEUE_URL": "https://sqs.eu-west-1.amazonaws.com/123456789012/jobs",
    "FLUX_BUCKET": "pictures",
    "FLUX_EVENT_BUS": "flux",
    "FLUX_MODEL_REVISION": REVISION,
}


def test_defaults() -> None:
    settings = ServeSettings.from_environment(GOOD | {"UNRELATED": "1"})
    assert settings.repo == "black-forest-labs/FLUX.1-dev"
    assert settings.prefix == "images/"
    assert settings.cache is None


def test_all_missing_variables_are_named_at_once() -> None:
    with pytest.raises(ConfigurationError) as caught:
        ServeSettings.from_environment({"FLUX_BUCKET": "  "})
    assert all(f"{name} is not set" in str(caught.value) for name in GOOD)
    assert caught.value.exit_code == 78


@pytest.mark.parametrize(
    ("name", "value"),
    [
        pytest.param("FLUX_MODEL_REPO", "black-forest-labs/FLUX.1-schnell", id="another-model"),
        pytest.param("FLUX_MODEL_REVISION", "main", id="branch-as-revision"),
        pytest.param("FLUX_QUEUE_URL", "jobs", id="queue-name-as-url"),
        pytest.param("FLUX_BUCKET", "s3://pictures", id="bucket-as-url"),
        pytest.param("FLUX_EVENT_BUS", "a bus", id="blank-in-bus"),
        pytest.param("FLUX_S3_PREFIX", "/images", id="prefix-with-leading-slash"),
        pytest.param("AWS_REGION", "Ireland", id="not-a-region"),
        pytest.param("FLUX_VISIBILITY_SECONDS", "soon", id="not-a-number"),
        pytest.param("HF_HUB_CACHE", "/no/such/folder", id="no-such-cache"),
    ],
)
def test_what_is_wrong_is_named_with_its_value(name: str, value: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        ServeSettings.from_environment(GOOD | {name: value})
    assert f"  {name}={value}: " in str(caught.value)
    assert len(str(caught.value).splitlines()) == 2


def test_a_queue_in_another_region_is_noticed() -> None:
    with pytest.raises(
        ConfigurationError, match="FLUX_QUEUE_URL is in eu-west-1, but AWS_REGION is eu-north-1"
    ):
        ServeSettings.from_environment(GOOD | {"AWS_REGION": "eu-north-1"})


def test_a_bus_may_be_an_arn(tmp_path: Path) -> None:
    arn = "arn:aws:events:eu-west-1:123456789012:event-bus/flux"
    assert ServeSettings.from_environment(GOOD | {"FLUX_EVENT_BUS": arn}).event_bus == arn


def test_drawing_by_hand_needs_the_model_alone(tmp_path: Path) -> None:
    settings = ModelSettings.from_environment(
        {"FLUX_MODEL_REVISION": REVISION, "HF_HUB_CACHE": str(tmp_path)}
    )
    assert settings.cache == tmp_path
