"""A page of the own machine that shows a cube or a published product.

`window` finds what a screen needs of a map and reads no more; `source` says what can be
asked of whatever is shown, `cube` and `product` answer it; `figures` and `page` draw,
`server` serves. Only the last three know Bokeh.
"""
