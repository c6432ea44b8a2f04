"""Rows of the decision table for regression tasks."""

from pages.choosing_guide.situation import Situation, Sweep, Sweeps, study

_LINEAR = "model=linear optimizer=adam scheduler=cosine optimizer.lr=0.05 trainer.max_epochs=60"
_LAST = "trainer.check_val_every_n_epoch=60 logger=none hydra.launcher.fuse=64 study.max_seeds=60"
_SYNTHETIC = f"{_LINEAR} data=linear_synthetic 'data.data_seed=${{seed}}'"
_SCALES = "'study.tune=[optimizer.lr,{loss.c:[0.1,10]},{loss.delta:[0.1,10]}]' study.trials=16 examine=false"
"""With a small c, tukey may have no gradient in the first batch, which the examination would refuse."""

SITUATIONS = (
    Situation(
        title="regression, Gaussian noise",
        first="mse",
        reason="It is the negative log-likelihood of Gaussian noise. No other loss needs fewer examples to estimate "
        "the mean equally well.",
        source="Gauss 1809, *Theoria motus*; Huber 1964, *Robust estimation of a location parameter*, for the "
        "efficiency that robust estimators lose under Gaussian noise",
        experiments=(
            study(
                "gaussian", _SYNTHETIC, "data.n=100 data.noise=1", _LAST, "loss=mse,huber,l1 study.reference=loss=mse"
            ),
        ),
        limits="There are 100 training examples with 10 features. The noise alone gives a test MSE of 1.",
    ),
    Situation(
        title="regression, outliers in the targets",
        first="huber",
        reason="Its gradient is bounded: an outlier has no more influence than a residual of δ. With δ = 1.345 "
        "standard deviations of the noise it keeps 95 % of the efficiency of mse under Gaussian noise.",
        source="Huber 1964, *Robust estimation of a location parameter*; Huber 1981, *Robust statistics*, for 1.345",
        experiments=(
            study(
                "outliers",
                _SYNTHETIC,
                "noise=outliers",
                _LAST,
                _SCALES,
                "loss=huber,l1,tukey,mse study.reference=loss=huber",
            ),
        ),
        limits="One tenth of the training targets are outliers, all of them shifted upwards. A loss that only bounds "
        "their influence remains biased. tukey has a gradient of 0 for large residuals and can avoid this bias, but "
        "learns nothing from examples whose residual is large at the start. δ and c are tuned like the learning rate; "
        "the validation data have no outliers.",
    ),
    Situation(
        title="regression, heavy-tailed noise: gross errors are common",
        first="cauchy",
        reason="It is the negative log-likelihood of a Cauchy distribution, up to scale. Its gradient decreases again "
        "for large residuals, so distant targets have less influence; with huber and l1 their influence stays "
        "constant.",
        source="Barron 2019, *A general and adaptive robust loss function*; Lange, Little & Taylor 1989, *Robust "
        "statistical modeling using the t distribution*",
        experiments=(
            study(
                "tails",
                _SYNTHETIC,
                "noise=outliers noise.rate=0.3 noise.sides=two",
                _LAST,
                _SCALES,
                "loss=cauchy,welsch,huber,l1,mse study.reference=loss=cauchy",
            ),
        ),
        limits="Three tenths of the training targets are outliers, shifted up or down with equal probability. The "
        "scales c and δ are tuned like the learning rate; the validation data have no outliers.",
    ),
    Situation(
        title="quantiles and prediction intervals",
        first="quantile, one run for each end of the interval",
        reason="Its expected value is minimal at the τ-quantile for every distribution, so a share τ of the targets "
        "should be below the prediction. expectile does not estimate a quantile.",
        source="Koenker & Bassett 1978, *Regression quantiles*; Newey & Powell 1987, *Asymmetric least squares "
        "estimation and testing*, for expectiles",
        experiments=(
            Sweeps(
                "quantiles",
                (
                    Sweep(
                        (
                            *_LINEAR.split(),
                            "data=diabetes",
                            "data.split_seed=${seed}",
                            "loss=quantile,expectile",
                            "loss.tau=0.1,0.9",
                        ),
                        bare=False,
                        seeds=8,
                    ),
                ),
                ("share below",),
                levels=True,
            ),
        ),
        limits="*Share below* is the share of the test targets that are below the prediction; nothing is tuned. Each "
        "split has 66 test patients, so a share is known to about ±4 %.",
    ),
    Situation(
        title="counts",
        first="poisson_nll",
        reason="The mean of a count is positive, and its variance grows with its mean. The Poisson likelihood with a "
        "logarithmic link models both.",
        source="Nelder & Wedderburn 1972, *Generalized linear models*",
        experiments=(
            study(
                "counts",
                _LINEAR,
                "data=counts 'data.data_seed=${seed}'",
                _LAST,
                "loss=poisson_nll,tweedie,mse study.reference=loss=poisson_nll",
            ),
        ),
        limits="The network is linear: under poisson_nll and tweedie in the logarithm of the mean, under mse in the "
        "mean itself. The data are log-linear.",
    ),
    Situation(
        title="noise whose variance differs between examples",
        first="gaussian_nll",
        reason="The network predicts a variance for each example, so noisy examples have less weight and each "
        "prediction has its own uncertainty.",
        source="Nix & Weigend 1994, *Estimating the mean and variance of the target probability distribution*; Seitzer "
        "et al. 2022, *On the pitfalls of heteroscedastic uncertainty estimation with probabilistic neural networks*, "
        "for cases in which it fits the mean worse than mse",
        experiments=(
            study(
                "heteroscedastic",
                _SYNTHETIC,
                "data.n=1000 noise=heteroscedastic",
                _LAST,
                "loss=gaussian_nll,mse,l1 study.reference=loss=gaussian_nll",
            ),
            Sweeps(
                "sigma",
                (
                    Sweep(
                        (
                            *_LINEAR.split(),
                            "data=linear_synthetic",
                            "data.data_seed=${seed}",
                            "data.n=1000",
                            "noise=heteroscedastic",
                            "loss=gaussian_nll,mse",
                        ),
                        bare=False,
                        seeds=8,
                    ),
                ),
                ("error of log σ",),
                "loss=gaussian_nll",
            ),
        ),
        limits="All targets have noise with standard deviation 0.1. The training targets have additional noise with "
        "standard deviation 0.5 · exp(z), where z is a feature. A linear model can represent the total variance only "
        "approximately. *Error of log σ* is the root mean square of log(predicted σ / true σ) over the test inputs, at "
        "the learning rate of the command; mse predicts one σ for all examples, computed from its squared errors in "
        "training.",
    ),
)
