"""What all pictures have in common."""

# Colors that people with any kind of color vision tell apart, after Okabe and Ito. Green is left
# out, since it may look like orange or red.
BLACK, GRAY = "#000000", "#8C8C8C"
BLUE, SKY = "#0072B2", "#56B4E9"
VERMILION, ORANGE = "#D55E00", "#E69F00"
PURPLE, YELLOW = "#CC79A7", "#F0E442"


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
