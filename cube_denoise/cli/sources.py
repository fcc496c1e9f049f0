"""Commands that find interferograms: index, search."""

import logging
from pathlib import Path, PurePath
from typing import Annotated

import typer

from cube_denoise.cli.application import Box, command, numbers

log = logging.getLogger(__name__)

STATIC_HELP = (
    "Static layers of DISP-S1 products, *_line_of_sight_enu.tif and *_dem.tif: paths "
    "or addresses; repeatable. Those beside products are found."
)


@command
def index(
    place: Annotated[
        str,
        typer.Argument(
            help="Folder of products, or one product, stack or series: a file. Of "
            "products of ARIA, NISAR and OPERA also an address: https://..., s3://...",
            metavar="PRODUCTS",
        ),
    ],
    out: Annotated[Path, typer.Option("-o", "--out", help="Catalog to write.")] = Path(
        "catalog.json"
    ),
    pattern: Annotated[
        str | None,
        typer.Option(
            help="Phase rasters of any other stack, with {reference} and {secondary} "
            "for the dates (YYYYMMDD). Without it, products are looked for of HyP3, "
            "ARIA (S1-GUNW), NISAR (GUNW), OPERA (DISP-S1), LiCSAR and LiCSBAS, MintPy."
        ),
    ] = None,
    coherence: Annotated[
        str | None, typer.Option(help="Coherence rasters of the stack, likewise.")
    ] = None,
    mask: Annotated[
        str | None,
        typer.Option(
            help="Masks or connected components, likewise: 0 where the phase does not "
            "hold."
        ),
    ] = None,
    elevation: Annotated[str | None, typer.Option(help="DEM of the stack, m.")] = None,
    unit: Annotated[
        str | None,
        typer.Option(
            help="Of the phase rasters: rad (default), or m, cm or mm of displacement "
            "along the line of sight."
        ),
    ] = None,
    band: Annotated[
        int, typer.Option(help="Of the phase rasters: 2 in those of ISCE.")
    ] = 1,
    grid: Annotated[
        str | None,
        typer.Option(
            help="dem_par of GAMMA: the rasters of the stack are flat, big-endian."
        ),
    ] = None,
    track: Annotated[
        str | None,
        typer.Option(
            help="Track such as A005; needed with --pattern, and where products do not "
            "tell it."
        ),
    ] = None,
    wavelength: Annotated[
        float | None, typer.Option(help="m; else from the tag WAVELENGTH_METRES.")
    ] = None,
    incidence: Annotated[
        float | None,
        typer.Option(
            help="Degrees; else from tags or --acquisitions. Also of DISP-S1 products "
            "without static layers."
        ),
    ] = None,
    heading: Annotated[
        float | None,
        typer.Option(
            help="Degrees from north; else --acquisitions. Also of DISP-S1 products."
        ),
    ] = None,
    static: Annotated[list[str] | None, typer.Option(help=STATIC_HELP)] = None,
    baselines: Annotated[
        str | None, typer.Option(help="CSV: reference, secondary, bperp_mean_m.")
    ] = None,
    acquisitions: Annotated[
        str | None,
        typer.Option(
            help="CSV: date, utc_center_time, heading_deg, incidence_deg_center."
        ),
    ] = None,
    nodata: Annotated[
        float, typer.Option(help="No-data value where files declare none.")
    ] = 0.0,
    phase_sign: Annotated[
        int,
        typer.Option(
            help="1: phase or displacement positive away from the satellite; -1: "
            "toward."
        ),
    ] = 1,
) -> None:
    """Make a static STAC catalog of interferograms: of a folder, a stack or a series.

    Files of --pattern are named relative to PRODUCTS. Products that cannot be read are
    listed as warnings.

    Example: cube-denoise index products -o catalog.json

    Example: cube-denoise index inputs/ifgramStack.h5 --track A005

    Example: cube-denoise index disp --incidence 38 --heading -13

    Example: cube-denoise index mexico --track A005
    --pattern 'unw/*_{reference}-{secondary}_*.tif' -o mexico.json

    Example: cube-denoise index merged/interferograms --track A087 --band 2
    --wavelength 0.05546576 --pattern '{reference}_{secondary}/filt_*.unw.geo.vrt'
    """
    from cube_denoise import catalog, products

    stack = {
        "--coherence": coherence,
        "--mask": mask,
        "--elevation": elevation,
        "--unit": unit,
        "--grid": grid,
        "--wavelength": wavelength,
        "--baselines": baselines,
        "--acquisitions": acquisitions,
    }
    if pattern is None:
        given = [name for name, value in stack.items() if value is not None]
        if given:
            raise ValueError(f"{', '.join(given)} describe a stack: give --pattern too")
        found, unreadable = products.find_products(
            place,
            track=track,
            incidence_angle=incidence,
            heading=heading,
            static=static or (),
        )
        for product, reason in unreadable.items():
            log.warning("left out %s: %s", PurePath(product).name, reason)
        if not found:
            raise ValueError(
                f"{place!r} has no readable product of HyP3, ARIA, NISAR, OPERA or "
                "LiCSAR; give --pattern for a stack of rasters"
            )
    elif track is None:
        raise ValueError("--pattern needs --track, such as A005")
    elif static:
        raise ValueError(
            "--static is of DISP-S1 products: it does not go with --pattern"
        )
    else:
        found = products.read_raster_stack(
            place,
            pattern=pattern,
            track=track,
            coherence=coherence,
            mask=mask,
            elevation=elevation,
            wavelength=wavelength,
            incidence_angle=incidence,
            heading=heading,
            baselines=baselines,
            acquisitions=acquisitions,
            nodata=nodata,
            phase_sign=phase_sign,
            unit=unit,
            band=band,
            grid=grid,
        )
    path = catalog.write_catalog(found, out)
    typer.echo(f"{len(found)} interferograms in {path}")


@command
def search(
    source: Annotated[
        str,
        typer.Argument(
            help="STAC API, catalog, item list, or a product, stack or series in HDF5.",
            metavar="SOURCE",
        ),
    ],
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="Item list to write.")
    ] = None,
    collection: Annotated[
        list[str] | None, typer.Option(help="Collection to look in; repeatable.")
    ] = None,
    bbox: Box = None,
    datetime: Annotated[
        str | None, typer.Option(help="Date or start/end; .. is an open end.")
    ] = None,
    orbit: Annotated[
        str | None, typer.Option(help="Track (A005) or relative orbit (5).")
    ] = None,
    filters: Annotated[
        list[str] | None,
        typer.Option(
            "--filter", help="Such as insar:temporal_baseline<=48; repeatable."
        ),
    ] = None,
    incidence: Annotated[
        float | None,
        typer.Option(help="Degrees; of DISP-S1 products, which do not tell it."),
    ] = None,
    heading: Annotated[
        float | None, typer.Option(help="Degrees from north; likewise.")
    ] = None,
    static: Annotated[list[str] | None, typer.Option(help=STATIC_HELP)] = None,
) -> None:
    """Find interferograms and write the list of them (without -o: show it).

    Of NASA's CMR-STAC the headers of the products are read, which needs an Earthdata
    login (EARTHDATA_TOKEN or ~/.netrc).

    Example: cube-denoise search catalog.json --orbit A005
    --filter 'insar:temporal_baseline<=48' -o items.json

    Example: cube-denoise search https://cmr.earthdata.nasa.gov/stac/ASF
    --collection ARIA_S1_GUNW_1 --bbox=-119,34,-117,35 --orbit D071 -o items.json
    """
    from cube_denoise import catalog

    found = catalog.search(
        source,
        collections=collection,
        bbox=numbers(bbox, "--bbox", 4),
        datetime=datetime,
        orbit=orbit,
        filters=filters,
        incidence_angle=incidence,
        heading=heading,
        static=static or (),
    )
    if not found:
        raise ValueError(f"{source} has no interferogram that fits the search")
    if out is None:
        for record in found:
            typer.echo("  ".join((*record.key, record.id)))
    else:
        catalog.write_items(found, out)
    pairs = len({record.key for record in found})
    typer.echo(f"{len(found)} interferograms of {pairs} pairs", err=out is None)
