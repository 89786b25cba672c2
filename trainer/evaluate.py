"""Evaluate the exported model of a run again, on the held-out split.

python -m trainer.evaluate --workdir=runs/mine
"""

from absl import flags

from settings import cli
from settings.errors import ConfigError
from settings.progress import showing_progress


def main() -> int:
    """Prints the metrics of the exported model and of the baselines. Returns the exit code."""
    # Imported here, because TensorFlow takes seconds to import and wrong flags should not wait for it.
    from trainer import config as config_lib
    from trainer.compat import tf
    from trainer.data.loading import load_dataset
    from trainer.data.saved import load_saved_vocabulary
    from trainer.evaluation.exported import ExportedModel
    from trainer.evaluation.final_metrics import print_protocols, print_recommendations
    from trainer.evaluation.metrics import build_metrics
    from trainer.evaluation.protocols import evaluate_queries, means_of
    from trainer.evaluation.verdict import decide
    from trainer.serving.export import load_export
    from trainer.workdir import Workdir

    workdir = Workdir(flags.FLAGS.workdir)
    config = workdir.load_config()
    model = ExportedModel(load_export(workdir.model, load_saved_vocabulary(workdir)))
    dataset = load_dataset(**config_lib.dataset_arguments(config))
    workdir.check_data(dataset.description)
    split = dataset.held_out_split
    if split is None:
        raise ConfigError(
            f"--workdir={workdir.path} cannot be evaluated: its run held out no ratings "
            f"(config.split.method={config.split.method!r}). Train a run with another config.split.method, for example "
            "random."
        )
    metrics = build_metrics(
        config.eval.metrics,
        relevance_threshold=config.eval.relevance_threshold,
        item_subtopics=dataset.vocabulary.item_genres(),
    )
    console = cli.build_console()
    with showing_progress(console) as progress:
        evaluation = evaluate_queries(
            tf.distribute.get_strategy(),
            model,
            dataset,
            split,
            metrics,
            progress=progress,
            **config_lib.protocol_arguments(config, has_timestamps=dataset.has_timestamps),
        )
    protocols = means_of(evaluation.protocols, seed=config.seed)
    print_protocols(console, split, protocols)
    print_recommendations(console, split, evaluation.recommendations)
    verdict = decide(split, evaluation.protocols, protocols, best_metric=config.eval.best_metric)
    console.print(verdict.sentence, soft_wrap=True)
    return 0


if __name__ == "__main__":
    flags.DEFINE_string("workdir", None, "Folder of a finished run, local or gs://.", required=True)
    cli.run(main)
