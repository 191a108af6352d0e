"""Talks made by hand: texts of things that are alike, and questions that only what was said before makes clear."""

from __future__ import annotations

from dataclasses import dataclass

TEXTS = {
    "falcon": "The Falcon pump is built in Graz. It turns at 900 revolutions a minute and weighs 41 kg. Its "
    "gasket is made of cork, and its bolts take 25 Nm. The Falcon pump was designed by Maria Keller. "
    "Oil is changed every 300 hours.",
    "heron": "The Heron pump is built in Turku. It turns at 1,450 revolutions a minute and weighs 63 kg. Its "
    "gasket is made of rubber, and its bolts take 40 Nm. The Heron pump was designed by Jonas Virtanen. "
    "Oil is changed every 500 hours.",
    "osprey": "The Osprey pump is built in Porto. It turns at 2,900 revolutions a minute and weighs 18 kg. Its "
    "gasket is made of copper, and its bolts take 12 Nm. The Osprey pump was designed by Ana Lopes. Oil "
    "is changed every 120 hours.",
    "keller": "Maria Keller was born in Linz in 1961. She studied mechanics in Vienna and wrote a book about "
    "seals, published in 1994. She lives in Salzburg and keeps bees.",
    "virtanen": "Jonas Virtanen was born in Oulu in 1970. He studied shipbuilding in Helsinki and holds eleven "
    "patents. He lives in Tampere and restores old radios.",
    "lopes": "Ana Lopes was born in Braga in 1983. She studied physics in Lisbon and won the Ferro prize in "
    "2015. She lives in Aveiro and sails small boats.",
    "kiln": "The kiln in hall two reaches 1,280 degrees and takes nine hours to cool. It was bought in 2009 and "
    "runs on gas. Its door is opened from the left. It is cleaned on Fridays by the night shift.",
    "oven": "The drying oven in hall three reaches 240 degrees and takes two hours to cool. It was bought in "
    "2018 and runs on electricity. Its door is opened from the right. It is cleaned on Mondays by the "
    "early shift.",
    "leave": "Employees have 28 days of holiday a year. Requests go to the head of the team three weeks ahead. "
    "Unused days expire at the end of March. Parents may take two more days.",
    "travel": "Journeys are booked by the travel desk in Zurich. Trains are taken below 600 km, flights above. "
    "Hotels may cost 140 euros a night. Receipts are handed in within ten days.",
}


@dataclass(frozen=True, slots=True)
class Talk:
    """Questions in their order. The answer to the last must hold `expected`, which stands in `text`."""

    questions: tuple[str, ...]
    text: str
    expected: str
    leaning: bool = True


LEANING = (
    Talk(("What is the gasket of the Falcon pump made of?", "And how heavy is it?"), "falcon", "41 kg"),
    Talk(("Where is the Heron pump built?", "What is its gasket made of?"), "heron", "rubber"),
    Talk(("How fast does the Osprey pump turn?", "How often is its oil changed?"), "osprey", "120"),
    Talk(("Where is the Osprey pump built?", "Who designed it?"), "osprey", "Ana Lopes"),
    Talk(("How heavy is the Falcon pump?", "And its torque?"), "falcon", "25 Nm"),
    Talk(("How heavy is the Falcon pump?", "What about the Heron pump?"), "heron", "63 kg"),
    Talk(("What is the gasket of the Heron pump made of?", "And of the Osprey pump?"), "osprey", "copper"),
    Talk(("Where is the Heron pump built?", "How fast does it turn?", "And how heavy is it?"), "heron", "63 kg"),
    Talk(("Where is the Osprey pump built?", "Who designed it?", "How heavy is it?"), "osprey", "18 kg"),
    Talk(("Where was Maria Keller born?", "When was her book published?"), "keller", "1994"),
    Talk(("Where does Ana Lopes live?", "What did she study?"), "lopes", "physics"),
    Talk(("How many patents has Jonas Virtanen?", "Where does he live?"), "virtanen", "Tampere"),
    Talk(("How hot does the kiln get?", "How long does it take to cool?"), "kiln", "nine hours"),
    Talk(("When was the drying oven bought?", "On which day is it cleaned?"), "oven", "Mondays"),
    Talk(("When was the kiln bought?", "What does it run on?"), "kiln", "gas"),
    Talk(("How hot does the kiln get?", "And the drying oven?"), "oven", "240"),
    Talk(("How many days of holiday are there?", "When do they expire?"), "leave", "March"),
    Talk(("How many days of holiday do employees have?", "And parents?"), "leave", "two more"),
    Talk(("Who books journeys?", "When are receipts for them handed in?"), "travel", "ten days"),
    Talk(("What may a hotel cost?", "And which distance is flown?"), "travel", "600 km"),
)
STANDING = (
    Talk(("What is the gasket of the Falcon pump made of?", "How heavy is the Heron pump?"), "heron", "63 kg", False),
    Talk(("How heavy is the Falcon pump?", "When was the kiln bought?"), "kiln", "2009", False),
    Talk(("How hot does the kiln get?", "How many days of holiday do employees have?"), "leave", "28", False),
    Talk(("Where is the Heron pump built?", "Where does Ana Lopes live?"), "lopes", "Aveiro", False),
    Talk(("What may a hotel cost?", "Which bolts does the Osprey pump take?"), "osprey", "12 Nm", False),
    Talk(("When was Maria Keller born?", "What does the drying oven run on?"), "oven", "electricity", False),
    Talk(("How heavy is the Osprey pump?", "What did Jonas Virtanen study?"), "virtanen", "shipbuilding", False),
    Talk(("When was the kiln bought?", "Where does the travel desk sit?"), "travel", "Zurich", False),
    Talk(("Who designed the Heron pump?", "How often is oil changed in the Falcon pump?"), "falcon", "300", False),
    Talk(("Where was Maria Keller born?", "Is there a prize that Ana Lopes won?"), "lopes", "Ferro", False),
)
ANSWERED = (
    Talk(("Who designed the Falcon pump?", "When was she born?"), "keller", "1961"),
    Talk(("Who designed the Heron pump?", "Where did he study?"), "virtanen", "Helsinki"),
    Talk(("Who designed the Osprey pump?", "Which prize did she win?"), "lopes", "Ferro"),
)
"""Where what is meant was not asked about but answered."""
