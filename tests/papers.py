"""Documents for looking at the page: a manual of three pages."""

from __future__ import annotations

import io

PAGES = [
    [
        "Handbook of the P-40 pump",
        "The P-40 moves water of up to 60 degrees. It stands on four feet of rubber.",
        "Before it is opened, the mains must be cut off and the valve on the pressure side closed.",
    ],
    [
        "Assembly",
        "The housing is closed with eight bolts. They are tightened crosswise in two rounds.",
        "The torque limit of the bolts is 25 Nm. A dry thread needs a drop of oil first.",
        "The gasket between the halves is made of cork and is replaced each time.",
    ],
    [
        "Operation",
        "The pump turns at 900 rpm. At lower speed it may run hot, and the bearing wears.",
        "Every 2000 hours the bearing is greased. A grease gun fits the nipple on the left.",
    ],
]


def manual() -> bytes:
    """The manual as a PDF."""
    from reportlab.lib.pagesizes import A5
    from reportlab.pdfgen.canvas import Canvas

    file = io.BytesIO()
    canvas = Canvas(file, pagesize=A5)
    for page in PAGES:
        for at, line in enumerate(page):
            canvas.setFont("Helvetica-Bold" if at == 0 else "Helvetica", 14 if at == 0 else 8)
            canvas.drawString(40, 540 - 28 * at, line)
        canvas.showPage()
    canvas.save()
    return file.getvalue()
