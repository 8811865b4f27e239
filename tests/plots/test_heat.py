"""Heat maps: which of many columns have a number below them."""

import numpy as np
import pandas as pd

from caap_lab.plots.heat import plot_heat


def test_numbers_of_many_columns_do_not_overlap() -> None:
    ax = plot_heat(pd.DataFrame(np.zeros((3, 197))), label="")
    numbers = [int(text.get_text()) for text in ax.get_xticklabels()]
    assert numbers == list(range(0, 197, 17))
