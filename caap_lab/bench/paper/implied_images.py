"""Numbers of images behind the paper's tables, estimated from standard errors; it states 500 for the main ones.

Localisation: the pointing game is a fraction p of hits, and the paper's standard errors are sqrt(p (1 - p) / n). So
each printed cell gives n = p (1 - p) / se^2, exact up to rounding.

Faithfulness: a standard error is the standard deviation over images divided by the square root of n. That deviation
depends on the method, the metric and the family of models, but little on the size of the model. So the squared ratio of
the standard error in the
main tables (1, 4 and 6, of the same family, method and metric) to that in another table, times 500, estimates its n.
Over all cells of a table the medians are 475 to 568 where 500 are stated, 252 for table 8 and 101 for table 10.
"""

from statistics import mean

from caap_lab.bench.paper.published import Published, published

STATED = 500
"""Images per data set of the main tables, as the paper states."""
MAIN = (1, 4, 6)
"""The main tables of insertion and deletion on ImageNet-1K, whose models come in the sizes L, B and S."""
_CURVES = ("Ins", "Del", "InsDel")
_HITS = "PG"


def implied_images(table: int) -> list[float]:
    """Estimates of a table's number of images, one value per cell from which it can be estimated.

    Args:
        table: Number of the table.

    Returns:
        For tables of localisation, one value per cell of the pointing game in the paper's order; otherwise one per cell
        whose family, method and metric are in the main tables; none for CNNs, which are in no main table.
    """
    rows = [row for row in published() if row.table == table and row.standard_error]
    hits = [row for row in rows if row.metric == _HITS]
    if hits:
        return [_share(row) * (1 - _share(row)) / (row.standard_error / 100) ** 2 for row in hits]
    found = []
    for row in rows:
        known = [one.standard_error for one in published() if one.table in MAIN and _alike(one, row)]
        if known:
            found.append(STATED * (mean(known) / row.standard_error) ** 2)
    return found


def _share(row: Published) -> float:
    return row.value / 100


def _alike(one: Published, row: Published) -> bool:
    """True for cells of the same metric and method, on models of one family and in different tables."""
    return (
        one.metric == row.metric
        and one.method == row.method
        and one.table != row.table
        and one.dataset == row.dataset
        and one.model.partition("-")[0] == row.model.partition("-")[0]
    )
