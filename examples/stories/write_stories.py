#!/usr/bin/env python3
"""Stories with questions and worked sums, by a seeded grammar: a line of JSON, {"text": ...}, for each.

    write_stories.py COUNT [--seed N] > FILE.jsonl

A story tells who found, bought, gave away or lost what, and where. Questions about it follow, with answers that only
the story tells, then sums with what was counted in it, worked digit by digit. The words are some three hundred, so that
a tokenizer of 1,024 has each of them whole. The same seed gives the same bytes.
"""

import argparse
import json
import random

GIRLS = ["Mia", "Anna", "Lily", "Rosa", "Emma", "Nora", "Ida", "Zoe"]
BOYS = ["Tom", "Ben", "Max", "Leo", "Sam", "Finn", "Paul", "Jack"]
HOMES = ["in a small village by the sea", "in a red house at the edge of the forest", "in an old mill by the river",
         "in a quiet town under the mountains", "on a farm with a green gate", "in a tall tower near the market"]
# What one says when there, and where it is.
PLACES = {"the garden": ("in", "behind the house"), "the forest": ("in", "where the path ends"),
          "the market": ("at", "near the old well"), "the beach": ("on", "below the white rocks"),
          "the river": ("at", "under the wooden bridge"), "the school": ("at", "beside the big oak"),
          "the barn": ("in", "on top of the hill"), "the station": ("at", "at the end of the road")}
THINGS = {"apples": "in a basket", "shells": "in a glass jar", "stones": "in a leather bag", "books": "on a wooden shelf",
          "eggs": "in a nest of straw", "coins": "in a little box", "flowers": "in a blue vase", "nuts": "in a paper bag",
          "candles": "on the kitchen table", "buttons": "in an old tin"}
PETS = {"dog": "barked", "cat": "purred", "goat": "jumped about", "parrot": "whistled a song", "horse": "shook its head",
        "duck": "flapped its wings"}
PET_NAMES = ["Spot", "Snow", "Pepper", "Biscuit", "Captain", "Shadow"]
WEATHER = ["The sun was shining and the sky was clear.", "It was raining and the streets were empty.",
           "A cold wind was blowing from the north.", "Snow had fallen and everything was white.",
           "It was a warm day and the birds were singing."]
TIMES = ["One morning", "One afternoon", "One evening", "On Monday", "On Sunday", "In the spring"]
COLOURS = ["red", "blue", "green", "yellow", "black", "white"]
CLOTHES = ["hat", "coat", "scarf", "pair of boots"]


class Child:
    def __init__(self, name, girl):
        self.name, self.he, self.his = name, "she" if girl else "he", "her" if girl else "his"
        self.kind = "girl" if girl else "boy"

    def He(self):
        return self.he.capitalize()


def at(place):
    return f"{PLACES[place][0]} {place}"


def worked_sum(a, b):
    """a + b, digit by digit from the right, as on paper."""
    lines, carry, x, y = [f"We add {a} and {b}."], 0, a, b
    for place in ("ones", "tens", "hundreds"):
        if x == 0 and y == 0 and carry == 0:
            break
        s = x % 10 + y % 10 + carry
        with_carry = " and 1 more" if carry else ""
        lines.append(f"The {place}: {x % 10} plus {y % 10}{with_carry} is {s}.")
        if s >= 10:
            lines.append(f"We write {s % 10} and carry 1.")
        else:
            lines.append(f"We write {s % 10}.")
        carry, x, y = s // 10, x // 10, y // 10
    return " ".join(lines) + f" So {a} + {b} = {a + b}."


def worked_difference(a, b):
    lines, borrow, x, y = [f"We take {b} from {a}."], 0, a, b
    for place in ("ones", "tens"):
        if x == 0 and y == 0:
            break
        top, low = x % 10 - borrow, y % 10
        borrow = 1 if top < low else 0
        if borrow:
            lines.append(f"The {place}: {top} is less than {low}, so we borrow 10. {top + 10} minus {low} is {top + 10 - low}.")
        else:
            lines.append(f"The {place}: {top} minus {low} is {top - low}.")
        lines.append(f"We write {(top - low) % 10}.")
        x, y = x // 10, y // 10
    return " ".join(lines) + f" So {a} - {b} = {a - b}."


class Story:
    def __init__(self, rng):
        self.rng, self.lines, self.questions, self.sums = rng, [], [], []
        girl = rng.random() < 0.5
        self.hero = Child(rng.choice(GIRLS if girl else BOYS), girl)
        girl = rng.random() < 0.5
        self.friend = Child(rng.choice([n for n in (GIRLS if girl else BOYS) if n != self.hero.name]), girl)
        self.places = rng.sample(sorted(PLACES), 3)
        self.things = rng.sample(sorted(THINGS), 2)

    def say(self, *sentences):
        self.lines.extend(sentences)

    def ask(self, question, answer):
        self.questions.append((question, answer))

    def opening(self):
        hero, rng = self.hero, self.rng
        home = rng.choice(HOMES)
        self.say(f"Once upon a time there was a {hero.kind} named {hero.name} who lived {home}.")
        self.ask(f"Where did {hero.name} live?", f"{hero.name} lived {home}.")
        if rng.random() < 0.6:
            pet, name = rng.choice(sorted(PETS)), rng.choice(PET_NAMES)
            self.say(f"{hero.He()} had a {pet} called {name}.",
                     f"Whenever {hero.name} came home, {name} {PETS[pet]} for joy.")
            self.ask(f"What was the name of the {pet}?", f"The {pet} was called {name}.")
        else:
            colour, cloth = rng.choice(COLOURS), rng.choice(CLOTHES)
            self.say(f"{hero.He()} always wore a {colour} {cloth} that {hero.his} grandmother had made for {hero.his} birthday.")
            self.ask(f"Who made the {cloth}?", f"The grandmother of {hero.name} made the {colour} {cloth}.")

    def finds(self):
        hero, rng, place, thing = self.hero, self.rng, self.places[0], self.things[0]
        self.count = rng.randint(12, 89)
        self.say(f"{rng.choice(TIMES)} {hero.name} went to {place} {PLACES[place][1]}.", rng.choice(WEATHER),
                 f"There {hero.he} found {self.count} {thing} and put them {THINGS[thing]}.")
        self.ask(f"Where did {hero.name} find the {thing}?", f"{hero.name} found the {thing} {at(place)} {PLACES[place][1]}.")

    def meets(self):
        hero, friend, rng, thing, place = self.hero, self.friend, self.rng, self.things[0], self.places[1]
        other = rng.randint(12, 89)
        self.say(f"On the way back {hero.he} met {hero.his} friend {friend.name} {at(place)} {PLACES[place][1]}.")
        if rng.random() < 0.5:
            self.say(f'"Look what I have found," said {hero.name}.',
                     f'"I have {other} {thing} at home," said {friend.name}. "Let us put them together."')
            self.sums.append((f"How many {thing} did {hero.name} and {friend.name} have together?", worked_sum(self.count, other),
                              f"{hero.name} and {friend.name} had {self.count + other} {thing} together."))
        else:
            other = rng.randint(3, self.count - 3)
            self.say(f'"May I have some of your {thing}?" asked {friend.name}.',
                     f'"Of course," said {hero.name}, and gave {other} {thing} to {friend.name}.')
            self.sums.append((f"How many {thing} did {hero.name} have then?", worked_difference(self.count, other),
                              f"{hero.name} had {self.count - other} {thing} then."))
        self.ask(f"Whom did {hero.name} meet {at(place)}?", f"{hero.name} met {friend.name} {at(place)}.")

    def ending(self):
        hero, friend, rng, thing, place = self.hero, self.friend, self.rng, self.things[1], self.places[2]
        a, b = rng.randint(11, 69), rng.randint(11, 69)
        if rng.random() < 0.7:
            self.say(f"The next day they walked to {place} {PLACES[place][1]} and saw many {thing}.",
                     f"{friend.name} took {a} {thing}, {hero.name} took {b}, and they put them {THINGS[thing]}.")
            self.sums.append((f"How many {thing} did they take from {place}?", worked_sum(a, b),
                              f"They took {a + b} {thing} from {place}."))
            self.ask(f"Where did they put the {thing}?", f"They put the {thing} {THINGS[thing]}.")
        self.say(rng.choice([f"In the evening {hero.name} told {hero.his} mother everything, and they laughed until it was time to sleep.",
                             f"Then {hero.name} and {friend.name} went home and were happy for the rest of the day.",
                             f"From that day on {hero.name} and {friend.name} were the best of friends."]))

    def text(self):
        self.opening()
        self.finds()
        self.meets()
        self.ending()
        self.rng.shuffle(self.questions)
        n = self.rng.randint(2, len(self.questions))
        parts = [" ".join(self.lines)]
        parts += [f"Question: {q}\nAnswer: {a}" for q, a in self.questions[:n]]
        parts += [f"Question: {q}\nAnswer: {work} {a}" for q, work, a in self.sums]
        return "\n".join(parts) + "\n"


def main():
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("count", type=int)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    for i in range(args.count):
        print(json.dumps({"text": Story(random.Random(f"{args.seed} {i}")).text()}))


if __name__ == "__main__":
    main()
