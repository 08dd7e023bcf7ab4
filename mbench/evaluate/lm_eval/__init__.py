"""Tasks of lm-eval: their files, their data, their requests, their scores per item."""
