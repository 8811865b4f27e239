"""What tests share."""

from helpers.shapes import check_shapes as check_shapes
