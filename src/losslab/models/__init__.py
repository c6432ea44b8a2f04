"""Networks, and the LightningModules that train them.

learner.py has `Regressor` and `Classifier`, metrics.py the metrics that they compute. The other modules have the
networks, each a class or function called with (input_shape, outputs) and the parameters of its configuration.
"""
