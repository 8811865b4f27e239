"""Heat maps: which of many columns have a number below them."""

import numpy as np
import pandas as pd

from caap_lab.plots.heat import plot_heat
from caap_lab.plots.style import new_figure


def test_numbers_of_many_columns_do_not_overlap() -> None:
    ax = plot_heat(pd.DataFrame(np.zeros((3, 197))), label="")
    numbers = [int(text.get_text()) for text in ax.get_xticklabels()]
    assert numbers == list(range(0, 197, 17))


def test_names_of_rows_have_as_many_lines_as_there_is_room_for() -> None:
    name = "caap:direction=remove,neighbourhood=none"
    for rows, width, lines in ((2, 4.8, 3), (20, 10, 1), (20, 4.8, 2)):
        ax = new_figure(width, 4).subplots()
        plot_heat(pd.DataFrame(np.zeros((rows, 2)), index=[name] * rows), ax, label="")
        shown = ax.get_yticklabels()[0].get_text()
        assert shown.count("\n") + 1 == lines and shown.replace("\n", "") == name
