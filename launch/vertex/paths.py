"""Finds paths in the trainer's flags and config that exist on this machine only, where the job cannot read them."""

import os
import pathlib

from configs import default
from settings.errors import ConfigError
from settings.trainer_config import TrainerConfig

# The folders of a checkout that the Dockerfiles copy into the image.
_IMAGE_FOLDERS = ("configs", "launch", "settings", "trainer")
_CHECKOUT = pathlib.Path(default.__file__).resolve().parent.parent

# "Use Cloud Storage as a mounted file system" of the Vertex AI documentation: a job sees gs://BUCKET as /gcs/BUCKET.
_MOUNTED_BUCKETS = "/gcs/"

# Names of ratings that are no paths, as configs/default.py explains.
_SYNTHETIC, _MOVIELENS = "synthetic", "movielens/"


def check_config_file(path: str) -> None:
    """Checks that the image has the trainer's config file.

    Raises:
      ConfigError: The file is not in a folder of the image, or the job would look for it elsewhere.
    """
    if _is_in_image(path):
        return
    name = pathlib.PurePath(path).name
    inside = os.path.relpath(os.path.realpath(path), _CHECKOUT)
    if inside.split(os.sep)[0] in _IMAGE_FOLDERS:
        way_out = f"Give it as --config={inside}, which is its path in the image"
    else:
        way_out = f"Put it into the folder configs/, build the image again, and give it as --config=configs/{name}"
    raise ConfigError(
        f"--config={path} of the trainer is a file of this machine, which the job cannot read. {way_out}."
    )


def check_sources(config: TrainerConfig) -> list[str]:
    """Checks that a job can read the data of a config.

    Returns:
      A warning for each path that may not be in the image.

    Raises:
      ConfigError: A source of ratings is a file or folder of this machine.
    """
    data, split, warnings = config.data, config.split, []
    for field, source in (
        ("config.data.source", data.source),
        ("config.split.validation_source", split.validation_source),
        ("config.split.test_source", split.test_source),
    ):
        if source in ("", _SYNTHETIC) or source.startswith(_MOVIELENS) or not _is_local(source):
            continue
        if os.path.exists(source):
            raise ConfigError(
                f"The trainer's {field}={source!r} is on this machine, where the job cannot read it. Copy it to Cloud "
                f"Storage, as in `gcloud storage cp --recursive {source} gs://BUCKET/`, and give its gs:// path."
            )
        warnings.append(
            f"The trainer's {field}={source!r} is not in the image that `make image` builds. The job fails unless your "
            "image has it. Ratings on Cloud Storage have a gs:// path."
        )
    if data.data_dir and _is_local(data.data_dir) and os.path.exists(data.data_dir):
        warnings.append(
            f"The trainer's config.data.data_dir={data.data_dir!r} is a folder of this machine. In the job it is "
            "another folder, empty at the start. Give a gs:// path for data that the job should find."
        )
    return warnings


def _is_local(path: str) -> bool:
    return "://" not in path and not path.startswith(_MOUNTED_BUCKETS) and not _is_in_image(path)


def _is_in_image(path: str) -> bool:
    # The job runs in the folder of the image that has these folders, so only relative paths are the same there.
    relative = os.path.normpath(path)
    return (
        not os.path.isabs(relative)
        and relative.split(os.sep)[0] in _IMAGE_FOLDERS
        and pathlib.Path(os.path.abspath(relative)).is_relative_to(_CHECKOUT)
        and os.path.exists(relative)
    )
