"""`shacira bench viewers`: how long people wait for the viewer, the page and the renderer of a
file, in a real browser that draws in software.
"""
