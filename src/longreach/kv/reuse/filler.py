"""Passages that chunks are read behind, so that none of them is read as the first.

A chunk that stands right behind a prompt's prefix is read otherwise than one in the middle: its first tokens draw the
attention that the beginning of a text draws, and all of it lacks what passages before it would bring. Read behind a
few passages about nothing in particular, which are then left out, it is nearer to what it will be in any prompt, and
nothing has to be computed for it when a question comes. What these passages say is made up; they are of several kinds,
as passages are.
"""

from __future__ import annotations

FILLER = (
    "Harbour lights\n"
    "The old harbour lies where the river meets the sea, some twelve kilometres south of the town. Its two "
    "lights were put up in 1874 and 1891 to guide fishing boats past the sandbank at night. A small museum in"
    " the keeper's house tells the story of the families who looked after them, and shows the lamps, the log "
    "books and a wooden boat. Since 1968 both lights have worked by themselves, and visitors may climb the "
    "taller one from April to October.",
    "Maria Lindholm (engineer)\n"
    "Maria Lindholm was a Swedish engineer who worked on bridges and railway lines in the first half of the "
    "twentieth century. Born in a village near Uppsala, she studied in Stockholm and later taught at the "
    "technical school there. Her best known work is the arch bridge over the northern sound, finished in "
    "1937, which at the time was the third longest of its kind. She received the academy's gold medal in 1952"
    " and died at the age of eighty-one.",
    "Common barley\n"
    "Barley is a grass that is grown for its seeds in most mild parts of the world. It was among the first "
    "plants that people sowed, about ten thousand years ago, and it needs less water than wheat. Most of the "
    "harvest feeds animals; the rest is made into bread, soups and malt. In 2016 it was fourth among all "
    "grains, with more than 140 million tonnes, of which Russia, Germany and France brought in the most.",
    "The Long Winter (album)\n"
    "The Long Winter is the second album of the American band Paper Rivers. It came out on 14 March 1995 and "
    "was recorded in six weeks in a farm house outside Nashville, Tennessee. Critics praised the quiet songs "
    'of its first half, and the single "Northbound" reached number nine in Canada and the United Kingdom. The'
    " drummer, Tom Avery, left the group after the tour that followed; he was replaced by his cousin in 1997.",
)
"""Each a title and a text, some 90 tokens long."""
