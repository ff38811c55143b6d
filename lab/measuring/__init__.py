"""What `python -m lab measure ...` runs: one runner, and one module per table in `results/`.

A table is added in three steps.

1. A module `lab/measuring/<name>.py`: a `Plan` (pydantic) with all that determines its rows beside
   weights and code, and a function that measures:

       class ReadingsPlan(Plan):
           n: Annotated[PositiveInt, Option(min=2, help="Test items.")] = 300
           seed: Seed = 0

       @measures("readings", ReadingsPlan, unit="tasks")
       def evaluate_readings(runner, plan):
           items = [Item({"task": t, "reading": r}, partial(measure, runner.model, t, r), cost)
                    for t in TASKS for r in READINGS]
           return runner.write(items, ("task", "reading", "accuracy", "low", "high", "n"), KEYS)

   It is called as `evaluate_readings("shapes-sd", n=100, output="readings.csv")`.
   `measure` returns a list of rows: dicts of the columns, `model_sha256` excepted. An `Item` is
   named by a row that it makes; it may make more, which are written together or not at all.
   `stamped=True` fills a column `settings`, and refuses to go on with rows of others.
2. A line in `commands.py`: fields of the plan with an `Option` can be given on the command line.
3. What follows from measured rows (means, comparisons) is not measured: make it from
   `table.frame()` and write it with `runner.publish(rows, beside="bars")`; its columns are the keys
   of the rows.

Change what a row means, and the runner's `version` goes up by one: then the cache has no answer,
and a stamped table refuses to go on with the old rows (one without `settings`: move it away).

A row of the few-shot table is an entry of one of the groups at the end of `few_shot_methods.py`:
name -> function of (setup, shots, seed) that fits on `setup.few(shots, seed)`, may choose on
`setup.validation`, and returns `setup.outcome(scores of setup.test, scores of validation, cost)`.
A column of few_shot.csv is an entry of the dict that `few_shot.summary` makes.
"""
