"""Lays out the model of a run for a server, and writes its vectors for a nearest-neighbour index.

python -m trainer.export --workdir=runs/mine --output=served/mine
python -m trainer.export --workdir=runs/mine --vectors=vectors/mine
"""

from absl import flags

from settings import cli
from settings.errors import ConfigError
from trainer import storage


def define_flags(values: flags.FlagValues = flags.FLAGS) -> None:
    """Defines the flags of the command."""
    flags.DEFINE_string(
        "output",
        None,
        "The folder of the versions of the model, local or gs://. The model becomes the next version in it: 1, 2, ... "
        "TensorFlow Serving serves the highest one. A version is never overwritten.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "vectors",
        None,
        "A new folder, local or gs://, for the vectors of all items and users: items.parquet and users.parquet. Their "
        "inner products are the scores of the model.",
        flag_values=values,
    )
    flags.DEFINE_integer(
        "k", 10, "With --output: the number of recommendations, which is fixed.", lower_bound=1, flag_values=values
    )
    flags.DEFINE_string(
        "name",
        None,
        "With --output: the name of the model on the server. By default the name of the folder.",
        flag_values=values,
    )
    flags.DEFINE_bool(
        "include_seen",
        False,
        "With --output: let the server recommend also what a user has seen. By default it is left out, as in "
        "trainer.recommend.",
        flag_values=values,
    )
    flags.DEFINE_enum(
        "default_signature",
        "recommend",
        ["recommend", "recommend_excluding", "recommend_from_history", "score", "similar_items"],
        "With --output: the signature of requests that name none, as on Vertex AI.",
        flag_values=values,
    )
    flags.DEFINE_bool(
        "warmup",
        True,
        "With --output: add requests with which TensorFlow Serving warms up. Needs the extra `serving`.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "workdir", None, "The folder of a finished run, local or gs://.", required=True, flag_values=values
    )


def main() -> int:
    """Checks the flags, then exports, and returns the exit code."""
    output, vectors = flags.FLAGS.output, flags.FLAGS.vectors
    if output is None and vectors is None:
        raise ConfigError(
            "Choose what to write: set --output=DIR for a server, --vectors=DIR for a nearest-neighbour index, or both."
        )
    if output is None:
        for name in ("k", "name", "include_seen", "default_signature", "warmup"):
            if flags.FLAGS[name].present:
                raise ConfigError(f"--{name} can only be used with --output. Take it out, or set --output too.")
    if vectors is not None and storage.exists(vectors):
        raise ConfigError(f"--vectors={vectors} already exists. Choose a new folder, or remove it first.")

    # Imported here, because TensorFlow takes seconds to import and wrong flags should not wait for it.
    from trainer.data.saved import load_saved_vocabulary, load_seen
    from trainer.evaluation.item_lists import ItemLists
    from trainer.serving.export import load_export
    from trainer.serving.serving_layout import write_version
    from trainer.serving.vectors import write_vectors
    from trainer.workdir import Workdir

    paths = Workdir(flags.FLAGS.workdir)
    paths.load_config()  # Refuses a folder that holds no run, or one whose format cannot be read.
    vocabulary = load_saved_vocabulary(paths)
    model = load_export(paths.model, vocabulary)
    console = cli.build_console()
    if output is not None:
        seen = ItemLists(*load_seen(paths))
        if flags.FLAGS.include_seen:
            seen = ItemLists.empty(seen.num_queries)
        name = flags.FLAGS.name or output.rstrip("/").rpartition("/")[2]
        version = write_version(
            model,
            vocabulary,
            seen,
            model_folder=paths.model,
            folder=output,
            k=flags.FLAGS.k,
            default_signature=flags.FLAGS.default_signature,
            model_name=name,
            with_warm_up=flags.FLAGS.warmup,
        )
        console.print(f"Wrote the model {name} for a server to {version}", soft_wrap=True)
    if vectors is not None:
        num_items, num_users, size = write_vectors(model, vocabulary, vectors)
        console.print(
            f"Wrote {num_items:,} vectors of items and {num_users:,} of users, each of {size:,} numbers, to {vectors}",
            soft_wrap=True,
        )
    return 0


if __name__ == "__main__":
    # Only here, because other entry points define flags of these names and a test may import them all.
    define_flags()
    cli.run(main)
