"""The default Vertex AI job: every field, with its meaning and its default. It is one machine without accelerators.

Check it without an account and without costs:

    python -m launch.vertex --project=PROJECT --region=us-central1 --image_uri=IMAGE \
        --base_output_dir=gs://BUCKET/run --dry_run -- --config=configs/default.py

Without --dry_run the job is submitted. One CPU machine for a few minutes is the cheapest job. --config.FIELD=VALUE
before the `--` sets a field; the flags behind the `--` are passed to `trainer.main`. The project, the region, the image
and the output folder are flags. launch/vertex/config.py has the allowed values.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """Returns the default job."""
    config = ConfigDict()

    # The name in the console. It does not have to be unique.
    config.display_name = "listwise"
    # Strings "KEY=VALUE", to filter jobs and costs.
    config.labels = ()
    # Strings "NAME=VALUE": environment variables of the trainer. Those of the submitting shell are not passed on.
    config.environment = ()
    # The account of the job, NAME@PROJECT.iam.gserviceaccount.com. Empty: the service agent of Vertex AI.
    config.service_account = ""
    # A network that is peered with Vertex AI, projects/PROJECT_NUMBER/global/networks/NAME. Empty: none.
    config.network = ""
    # A managed TensorBoard, projects/PROJECT/locations/REGION/tensorboards/ID. Vertex AI uploads the logs to it, and
    # needs service_account. Empty: none. The logs are in the output folder in any case.
    config.tensorboard = ""

    # The number of machines. All have the same type. The first is the chief, the others are workers.
    config.num_machines = 1
    # A machine type of Vertex AI.
    config.machine_type = "n1-standard-8"
    # Type and number of the GPUs of a machine, such as NVIDIA_TESLA_T4; or TPU_V2 or TPU_V3, and the number of cores.
    config.accelerator_type = ""
    config.accelerator_count = 0
    # For TPU v5e (machine_type ct5lp-hightpu-{1,4,8}t): the shape of the slice, such as 2x2.
    config.tpu_topology = ""
    # pd-ssd, pd-standard or hyperdisk-balanced.
    config.boot_disk_type = "pd-ssd"
    # The size of the boot disk in gigabytes.
    config.boot_disk_size_gb = 100

    # Machines without GPUs that add up the gradients of several GPU machines. num_machines=0: none. The trainer's image
    # needs the package google-reduction-server, with the NCCL plugin that connects to them.
    config.reduction_server = ConfigDict()
    config.reduction_server.num_machines = 0
    config.reduction_server.machine_type = "n1-highcpu-16"
    config.reduction_server.image_uri = "us-docker.pkg.dev/vertex-ai-restricted/training/reductionserver:latest"

    config.scheduling = ConfigDict()
    # `standard`; `spot`, which Vertex AI can interrupt at any time; or `flex_start`, which waits for free GPUs.
    config.scheduling.strategy = "standard"
    # The job ends after this many hours. This limits its cost.
    config.scheduling.timeout_hours = 24.0
    # The longest wait of a flex_start job in hours. 0: no limit.
    config.scheduling.max_wait_hours = 24.0
    # How often all machines restart after one was lost or crashed. The trainer then resumes from its last checkpoint.
    # Vertex AI knows only its own number, 3 (`spot`: 6), and 0 for never.
    config.scheduling.max_restarts = 3

    # A hyperparameter-tuning job, for `python -m launch.vertex tune`.
    config.study = ConfigDict()
    # The validation metric to optimize, as in the trainer's config.eval.best_metric.
    config.study.metric = "catalogue/ndcg@10"
    # `max` if a higher value is better, `min` if a lower one is.
    config.study.goal = "max"
    # The fields of the trainer's config to vary, each with a range or with values, for example
    #   {"field": "optimizer.learning_rate", "range": (0.01, 1.0), "scale": "log"}
    #   {"field": "model.embedding_size", "values": (32, 64, 128)}
    # `scale` is linear (the default), log or reverse_log. It is only for numbers.
    config.study.parameters = ()
    # The number of trials.
    config.study.max_trials = 16
    # The number of trials at the same time. With fewer, each trial can use the results of more earlier trials.
    config.study.parallel_trials = 4
    # The study ends when this many trials have failed. 0: Vertex AI decides.
    config.study.max_failed_trials = 4
    # `bayesian`, `random`, or `grid`, which does not accept a range of fractions.
    config.study.algorithm = "bayesian"

    return config
