"""Networks, and the LightningModules that train them.

learner.py contains `Regressor` and `Classifier`, metrics.py their metrics, and cosine.py a last layer for them.
The other modules contain networks: classes or functions of (input_shape, outputs) and the options in conf/model.
"""
