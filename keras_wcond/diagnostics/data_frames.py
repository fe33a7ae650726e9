"""Data frames. This is the one module that needs pandas, an optional package."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pandas import DataFrame as DataFrame


def data_frame(records: list[dict[str, Any]]) -> "DataFrame":
    """A data frame with a row per record, or an error that states how to install pandas."""
    try:
        import pandas
    except ImportError as error:
        raise ImportError(
            "Expected pandas to be installed, which has the data frames. Install it with "
            "`pip install pandas`. `records` and `to_json()` do not need it."
        ) from error
    return pandas.DataFrame(records)
