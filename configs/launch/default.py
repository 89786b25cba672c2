"""Every field of a Vertex AI job, with its default: one machine without an accelerator.

Try it without paying, on no account at all:

    python -m launch.vertex --project=PROJECT --region=us-central1 --image_uri=IMAGE \
        --base_output_dir=gs://BUCKET/run --dry_run -- --config=configs/default.py

Without --dry_run it is submitted; one CPU machine for some minutes is the cheapest job there is. Any field
can be set with --config.FIELD=VALUE before the `--`; what follows it is given to `trainer.main` as it stands.
Where the job runs, from which image, and where to is no matter of a config: these are flags.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """The default job."""
    config = ConfigDict()

    # What the console shows; names need not be unique.
    config.display_name = "listwise"
    # "KEY=VALUE", to find jobs and to split the bill by.
    config.labels = ()
    # "NAME=VALUE", for the trainer on every machine. Nothing of the submitting shell's environment is passed on.
    config.environment = ()
    # Whom the job acts as: NAME@PROJECT.iam.gserviceaccount.com. Empty: Vertex AI's own agent.
    config.service_account = ""
    # projects/PROJECT_NUMBER/global/networks/NAME, peered with Vertex AI. Empty: none.
    config.network = ""
    # projects/PROJECT/locations/REGION/tensorboards/ID, a managed TensorBoard the logs are uploaded to while
    # the job runs; needs service_account. Empty: none, and the logs are read where the job writes them.
    config.tensorboard = ""

    # All machines are of one kind. The first is the chief; the others are workers.
    config.num_machines = 1
    config.machine_type = "n1-standard-8"
    # GPUs of each machine: NVIDIA_TESLA_T4, NVIDIA_L4, ... and how many. Of TPUs: TPU_V2 or TPU_V3, and cores.
    config.accelerator_type = ""
    config.accelerator_count = 0
    # Of TPU v5e (machine_type ct5lp-hightpu-{1,4,8}t): the shape of the slice, such as 2x2.
    config.tpu_topology = ""
    # pd-ssd, pd-standard or hyperdisk-balanced.
    config.boot_disk_type = "pd-ssd"
    config.boot_disk_size_gb = 100

    # Machines without GPUs that add up the gradients of several GPU machines. The trainer's image has to
    # hold the google-reduction-server package, whose NCCL plugin finds them.
    config.reduction_server = ConfigDict()
    config.reduction_server.num_machines = 0
    config.reduction_server.machine_type = "n1-highcpu-16"
    config.reduction_server.image_uri = "us-docker.pkg.dev/vertex-ai-restricted/training/reductionserver:latest"

    config.scheduling = ConfigDict()
    # `standard`; `spot`, which may be taken away at any time; `flex_start`, which waits for GPUs to be free.
    config.scheduling.strategy = "standard"
    # The job is ended after this long: the bound of what it can cost.
    config.scheduling.timeout_hours = 24.0
    # How long a job of flex_start may wait; 0 for as long as it takes.
    config.scheduling.max_wait_hours = 24.0
    # Start all machines again when one was lost; the trainer then goes on from its last checkpoint.
    config.scheduling.restart_on_worker_restart = False

    # A hyperparameter-tuning job, for `python -m launch.vertex tune`.
    config.study = ConfigDict()
    # What is tuned for: a figure of the trainer's validation, `loss` or one of its config.eval.metrics.
    config.study.metric = "ndcg@10"
    # `max` or `min`.
    config.study.goal = "max"
    # Each a field of the trainer's config, with the range or the values to try, for example
    #   {"field": "optimizer.learning_rate", "range": (0.01, 1.0), "scale": "log"}
    #   {"field": "model.embedding_size", "values": (32, 64, 128)}
    # `scale` is linear (the default), log or reverse_log, of numbers only.
    config.study.parameters = ()
    config.study.max_trials = 16
    # Trials at a time. The fewer, the more each can learn from those before it.
    config.study.parallel_trials = 4
    # The study ends when this many trials have failed; 0 lets Vertex AI decide.
    config.study.max_failed_trials = 4
    # `bayesian`, `random`, or `grid`, which takes no range of fractions.
    config.study.algorithm = "bayesian"

    return config
