"""Rows of the decision table for regression tasks."""

from pages.choosing_guide.situation import Situation, Sweep

_LINEAR = ("model=linear", "optimizer=adam", "optimizer.lr=0.05", "trainer.max_epochs=60")
_SYNTHETIC = (*_LINEAR, "data=linear_synthetic", "data.data_seed=${seed}")

SITUATIONS = (
    Situation(
        name="gaussian",
        title="regression, Gaussian noise",
        first="mse",
        compare="huber, l1",
        reason="It is the negative log-likelihood of Gaussian noise. No other loss needs fewer examples to estimate "
        "the mean equally well.",
        source="Gauss 1809, *Theoria motus*; Huber 1964, *Robust estimation of a location parameter*, for the "
        "efficiency that robust estimators lose under Gaussian noise",
        sweeps=(Sweep((*_SYNTHETIC, "data.noise=1", "loss=mse,huber,l1")),),
        metrics=("test/mse",),
        baseline="loss=mse",
    ),
    Situation(
        name="outliers",
        title="regression, outliers in the targets",
        first="huber, δ about 1.345 standard deviations of the noise",
        compare="l1, tukey, mse",
        reason="Its gradient is bounded: an outlier has no more influence than a residual of δ. With δ = 1.345 σ it "
        "keeps 95 % of the efficiency of mse under Gaussian noise.",
        source="Huber 1964, *Robust estimation of a location parameter*; Huber 1981, *Robust statistics*, for 1.345",
        sweeps=(
            Sweep((*_SYNTHETIC, "noise=outliers", "loss=huber", "loss.delta=0.135,1.0"), seeds=8),
            Sweep((*_SYNTHETIC, "noise=outliers", "loss=l1,tukey,mse"), seeds=8),
        ),
        metrics=("test/mse",),
        baseline="loss=huber loss.delta=0.135",
        limits="One tenth of the training targets are outliers, all of them shifted upwards. A loss that only bounds "
        "their influence remains biased. tukey has a gradient of 0 for large residuals and can avoid this bias.",
    ),
    Situation(
        name="tails",
        title="regression, heavy-tailed noise: gross errors are common",
        first="cauchy",
        compare="barron over alpha, huber, l1, welsch",
        reason="It is the negative log-likelihood of a Cauchy distribution, up to scale. Its gradient decreases again "
        "for large residuals, so distant targets have less influence; with huber and l1 their influence stays "
        "constant.",
        source="Barron 2019, *A general and adaptive robust loss function*; Lange, Little & Taylor 1989, *Robust "
        "statistical modeling using the t distribution*",
        sweeps=(
            Sweep(
                (*_SYNTHETIC, "noise=outliers", "noise.rate=0.3", "noise.sides=two", "loss=cauchy,welsch,huber,l1,mse")
            ),
        ),
        metrics=("test/mse",),
        baseline="loss=cauchy",
        limits="Three tenths of the training targets are outliers, shifted up or down with equal probability. cauchy, "
        "welsch and huber have their default scale (c = 1 or δ = 1), which is ten standard deviations of the remaining "
        "noise. With a smaller c, the influence of an outlier in cauchy and welsch begins to decrease at smaller "
        "residuals.",
    ),
    Situation(
        name="quantiles",
        title="quantiles and prediction intervals",
        first="quantile, one run for each end of the interval",
        compare="gaussian_nll with mean ± 1.645 σ; expectile, which does not estimate a quantile",
        reason="Its expected value is minimal at the τ-quantile for every distribution, so a share τ of the targets "
        "should be below the prediction.",
        source="Koenker & Bassett 1978, *Regression quantiles*; Newey & Powell 1987, *Asymmetric least squares "
        "estimation and testing*, for expectiles",
        sweeps=(
            Sweep(
                (*_LINEAR, "data=diabetes", "data.split_seed=${seed}", "loss=quantile,expectile", "loss.tau=0.1,0.9"),
                bare=False,
            ),
        ),
        metrics=("share below",),
        baseline="",
        levels=True,
        limits="*Share below* is the share of the test targets that are below the prediction. Each split has 66 test "
        "patients, so a share is known to about ±4 %. The interval of expectile with τ = 0.1 contains τ only because "
        "it is wide.",
    ),
    Situation(
        name="counts",
        title="counts",
        first="poisson_nll",
        compare="tweedie, mse",
        reason="The mean of a count is positive, and its variance grows with its mean. The Poisson likelihood with a "
        "logarithmic link models both.",
        source="Nelder & Wedderburn 1972, *Generalized linear models*",
        sweeps=(Sweep((*_LINEAR, "data=counts", "data.data_seed=${seed}", "loss=poisson_nll,tweedie,mse")),),
        metrics=("test/mse",),
        baseline="loss=poisson_nll",
    ),
    Situation(
        name="heteroscedastic",
        title="noise whose variance differs between examples",
        first="gaussian_nll",
        compare="mse with one variance for all examples; quantile",
        reason="The network predicts a variance for each example, so noisy examples have less weight and each "
        "prediction has its own uncertainty.",
        source="Nix & Weigend 1994, *Estimating the mean and variance of the target probability distribution*; Seitzer "
        "et al. 2022, *On the pitfalls of heteroscedastic uncertainty estimation with probabilistic neural networks*, "
        "for cases in which it fits the mean worse than mse",
        sweeps=(
            Sweep(
                (*_SYNTHETIC, "data.n=1000", "noise=heteroscedastic", "loss=gaussian_nll,mse,l1"), bare=False, seeds=8
            ),
        ),
        metrics=("test/mse", "error of log σ"),
        baseline="loss=gaussian_nll",
        limits="All targets have noise with standard deviation 0.1. The training targets have additional noise with "
        "standard deviation 0.5 · exp(z), where z is a feature. A linear model can represent the total variance only "
        "approximately. *Error of log σ* is the root mean square of log(predicted σ / true σ) over the test inputs. "
        "mse and l1 predict one σ for all examples, computed from their squared errors in training.",
    ),
)
