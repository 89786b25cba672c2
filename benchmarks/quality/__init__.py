"""Compares the quality of rankings with that of other methods, all tuned in the same way.

    python -m benchmarks.quality --data_dir=DIR --output=DIR [--protocols=NAME,...] [--methods=NAME,...]
                                 [--num_trials=30] [--gowalla_ease] [--table_only]

The rules are the same for every method:

- All methods get the same split, and rank the same candidates: every item that the user has no other rating of. The
  test ranks without the training and the validation items, a trial ranks without the training items.
- Hyperparameters are chosen on the validation ratings of the first seed, and used for all seeds. Each method has the
  same number of trials, which Optuna's TPE sampler proposes. The first trial has the method's usual values. A method
  without hyperparameters has one trial.
- Then the method is fit again, on the training and the validation ratings together, and ranks the test ratings. It does
  so once per seed. Published splits have no validation ratings, so a tenth of each user's training ratings is held out
  for the trials. The final fit uses the whole training split, as the published results did.
- One implementation computes the metrics of all methods. Equal scores are counted by their exact expectation.

The times are those of the fits, without the evaluation by this benchmark. The memory is the peak of the process, which
runs one method. 0.1 GB of it is Python itself. TensorFlow adds 0.5 GB, and keeps about 0.1 GB of each trial.

Results are appended to DIR/results.jsonl as they come. The same command goes on where it was interrupted. At the
end it prints the Markdown tables of README.md and docs/quality.md, from that file. Only one command may use DIR at a
time.
"""
