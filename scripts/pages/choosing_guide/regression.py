"""Situations of regression."""

from pages.choosing_guide.situation import Situation, Sweep

_LINEAR = ("model=linear", "optimizer=adam", "optimizer.lr=0.05", "trainer.max_epochs=60")
_SYNTHETIC = (*_LINEAR, "data=linear_synthetic", "data.data_seed=${seed}")

SITUATIONS = (
    Situation(
        name="gaussian",
        title="regression, Gaussian noise",
        first="mse",
        compare="huber, l1",
        reason="It is the negative log-likelihood of Gaussian noise, so no other loss estimates the mean from fewer "
        "examples.",
        source="Gauss 1809, *Theoria motus*; Huber 1964, *Robust estimation of a location parameter*, for what robust "
        "estimates lose then",
        sweeps=(Sweep((*_SYNTHETIC, "data.noise=1", "loss=mse,huber,l1")),),
        metrics=("test/mse",),
        baseline="loss=mse",
    ),
    Situation(
        name="outliers",
        title="regression, outliers in the target",
        first="huber, δ about 1.345 standard deviations of the noise",
        compare="l1, tukey, mse",
        reason="Its gradient is bounded, so one wrong target pulls no harder than one that lies δ away; at 1.345 σ it "
        "keeps 95 % of the efficiency of mse under Gaussian noise.",
        source="Huber 1964, *Robust estimation of a location parameter*; Huber 1981, *Robust statistics*, for 1.345",
        sweeps=(
            Sweep((*_SYNTHETIC, "noise=outliers", "loss=huber", "loss.delta=0.135,1.0"), seeds=8),
            Sweep((*_SYNTHETIC, "noise=outliers", "loss=l1,tukey,mse"), seeds=8),
        ),
        metrics=("test/mse",),
        baseline="loss=huber loss.delta=0.135",
        limits="A tenth of the training targets is thrown off, all upwards. A loss that only bounds their pull keeps a "
        "bias; one that lets go of them (tukey) need not.",
    ),
    Situation(
        name="tails",
        title="regression, heavy tails: gross errors are common",
        first="cauchy",
        compare="barron over alpha, huber, l1, welsch",
        reason="It is the negative log-likelihood of a Cauchy distribution up to scale, and its gradient falls again "
        "with the residual, so that far targets count less instead of just no more.",
        source="Barron 2019, *A general and adaptive robust loss function*; Lange, Little & Taylor 1989, *Robust "
        "statistical modeling using the t distribution*",
        sweeps=(
            Sweep(
                (*_SYNTHETIC, "noise=outliers", "noise.rate=0.3", "noise.sides=two", "loss=cauchy,welsch,huber,l1,mse")
            ),
        ),
        metrics=("test/mse",),
        baseline="loss=cauchy",
        limits="Three tenths of the training targets are thrown off, to both sides alike. Each loss has its default "
        "scale, c = 1 or δ = 1, which is ten standard deviations of the other noise: a smaller one lets go of the "
        "outliers sooner.",
    ),
    Situation(
        name="quantiles",
        title="quantiles and prediction intervals",
        first="quantile, once for each end of the interval",
        compare="gaussian_nll's mean ± 1.645 σ; expectile, which is no quantile",
        reason="Its expected value is least at the τ-quantile whatever the distribution, so a share τ of the targets "
        "should lie below the prediction.",
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
        limits="67 test patients a split: a share is known to about ±4 % there.",
    ),
    Situation(
        name="counts",
        title="counts",
        first="poisson_nll",
        compare="tweedie, mse",
        reason="The variance of a count grows with its mean and the rate is positive: the Poisson likelihood with a "
        "logarithmic link says both.",
        source="Nelder & Wedderburn 1972, *Generalized linear models*",
        sweeps=(Sweep((*_LINEAR, "data=counts", "data.data_seed=${seed}", "loss=poisson_nll,tweedie,mse")),),
        metrics=("test/mse",),
        baseline="loss=poisson_nll",
    ),
    Situation(
        name="heteroscedastic",
        title="noise that differs between examples",
        first="gaussian_nll",
        compare="mse with one variance for all; quantile",
        reason="The network predicts a variance for each example, so noisy examples count less and each prediction "
        "comes with its own uncertainty.",
        source="Nix & Weigend 1994, *Estimating the mean and variance of the target probability distribution*; Seitzer "
        "et al. 2022, *On the pitfalls of heteroscedastic uncertainty estimation with probabilistic neural networks*, "
        "for when it fits the mean worse than mse",
        sweeps=(
            Sweep(
                (*_SYNTHETIC, "data.n=1000", "noise=heteroscedastic", "loss=gaussian_nll,mse,l1"), bare=False, seeds=8
            ),
        ),
        metrics=("test/mse", "error of log σ"),
        baseline="loss=gaussian_nll",
        limits="The standard deviation of the noise that is added is 0.5 · exp(z) for a feature z, beside 0.1 for all; "
        "a linear model can express the whole only nearly. The error of log σ is the root mean square of "
        "log(predicted σ / true σ) on the test inputs; mse and l1 predict one σ for all, from their squared errors in "
        "training. The test targets are without the noise that was added.",
    ),
)
