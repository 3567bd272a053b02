"""`python -m absence_utils.run 06_extreme_patches --profile smoke`: one notebook, strictly. See `runner.run`."""

from absence_utils.runner.run import main

if __name__ == "__main__":
    raise SystemExit(main())
