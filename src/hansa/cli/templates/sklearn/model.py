"""A scikit-learn estimator with coef_ and intercept_.  Change it to your own."""

from sklearn.linear_model import SGDClassifier


def model():
    """Return a new estimator; its coefficients are the seed model, all zero."""
    return SGDClassifier(loss="log_loss", learning_rate="constant", eta0=0.05, alpha=1e-4)
