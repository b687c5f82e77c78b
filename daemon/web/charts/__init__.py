"""Pictures of spectra, layers and versions as SVG text, the same for the daemon's pages and for the static report.

They carry no script and no style attribute: colours come from classes that ``charts.css`` names, so that light and dark
are the stylesheet's. Every picture has a title and a description for those who do not see it, and every point a title.
"""
