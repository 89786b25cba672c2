"""Evaluates the exported model of a run again, on the split that was held out.

python -m trainer.evaluate --workdir=runs/mine
"""

from absl import flags

from settings import cli
from settings.errors import ConfigError
from trainer import config as config_lib
from trainer import schema
from trainer.compat import tf
from trainer.data.dataset import load_dataset
from trainer.evaluation.metrics import build_metrics
from trainer.evaluation.protocols import evaluate_protocols, print_protocols
from trainer.workdir import Workdir


def main() -> int:
    """Evaluates the exported model of a run on the split that was held out, and prints the tables."""
    workdir = Workdir(flags.FLAGS.workdir)
    config = workdir.load_config()
    if not tf.io.gfile.exists(f"{workdir.model}/saved_model.pb"):
        raise ConfigError(f"--workdir={workdir.path} holds no finished run: there is no model in {workdir.model}.")
    dataset = load_dataset(**config_lib.dataset_arguments(config))
    workdir.check_data(dataset.description)
    split = dataset.held_out_split
    if split is None:
        raise ConfigError(
            f"--workdir={workdir.path} held no ratings out (config.split.method={config.split.method!r}), so "
            "there is nothing to evaluate on that training has not seen."
        )
    model = tf.saved_model.load(workdir.model)
    metrics = build_metrics(
        config.eval.metrics,
        relevance_threshold=config.eval.relevance_threshold,
        item_subtopics=dataset.vocabulary.item_genres(),
    )
    protocols = evaluate_protocols(
        tf.distribute.get_strategy(),
        lambda features: model.score_indices(features[schema.QUERY], features[schema.ITEMS]),
        dataset,
        split,
        metrics,
        **config_lib.protocol_arguments(config),
    )
    print_protocols(cli.build_console(), split, protocols)
    return 0


if __name__ == "__main__":
    flags.DEFINE_string("workdir", None, "Folder, local or gs://, of a finished run.", required=True)
    cli.run(main)
