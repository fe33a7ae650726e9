"""What all pictures have in common."""


def pyplot():
    """Matplotlib's pyplot, which draws to files only."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot as plt

    return plt


def tidy(axes):
    """A light grid, and no frame above and to the right."""
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
