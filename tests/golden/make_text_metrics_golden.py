#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""BLEU, ROUGE-L and stems as sacrebleu 2.6, rouge-score 0.1.2 and nltk 3.10 compute them.

    pip install sacrebleu==2.6.0 rouge-score==0.1.2
    python3 make_text_metrics_golden.py > text_metrics.jsonl

One line a set of answers: {"got": [..], "want": [..], "bleu": x, "rouge_l": [..]};
then lines of {"stems": [[word, stem], ..]}.
"""
import json
import random

import sacrebleu
from nltk.stem import porter
from rouge_score import rouge_scorer

SETS = [
    (["the cat sat on the mat"], ["the cat sat on the mat"]),
    (["the cat is on the mat."], ["There is a cat on the mat."]),
    (["the the the the the the the"], ["the cat is on the mat"]),
    ([""], ["something"]),
    (["something"], [""]),
    (["", ""], ["", ""]),
    (["   \n\t "], ["blanks alone"]),
    (["yes"], ["yes"]),
    (["a b c"], ["a b c"]),
    (["a b c d"], ["e f g h"]),
    (["It costs $1,234.56, or 10.5% more."], ["It costs $1,234.50, or 10.5 % more."]),
    (["3.14 and .5 and 5. and 1,000,000 and 1-2 and a-b"],
     ["3.14 and .5 and 5. and 1,000,000 and 1-2 and a-b and more"]),
    (["wait... what?! (really), 'quoted' \"twice\" [x] {y} a/b c_d e^f `g`"],
     ["wait ... what ? ! ( really ) , 'quoted' \" twice \" x y a / b"]),
    (["&quot;quoted&quot; &amp; &lt;tag&gt; &amp;lt; <skipped>done"],
     ["\"quoted\" & <tag> &lt; done"]),
    (["a hyphen-\nated word\nand two\r\nlines"], ["a hyphenated word and two lines"]),
    (["Grüße aus Köln, naïve café. Ελλάδα! 中文。字"], ["Grüße aus Köln , naïve café . Ελλάδα ! 中文。字"]),
    (["one\u00a0two\u2003three\u3000four\u2028five six"], ["one two three four five six\u00a0"]),
    (["300 \u212a is cold in \u0130stanbul \u0130\u0130"], ["300 k is cold in istanbul"]),
    (["emoji 😀 😀, and ZWJ 👩‍💻."], ["emoji 😀, and zwj 👩‍💻 ."]),
    (["x,y.z ,. ., a.,b 1.,2 1,.a é.è"], ["x , y . z ,. ., a.,b 1.,2 1,.a é.è"]),
    (["5-6-7 a5-b -5 5--6"], ["5 - 6 - 7 a5 - b -5 5 - - 6"]),
    (["1.", "2,", "3"], ["1 .", "2 ,", "3"]),
    (["The quick brown fox jumps over the lazy dog", "He enjoyed flying; they tried dying colours.",
      "42", ""],
     ["A quick brown fox jumped over lazy dogs.", "He enjoys flies. They try to dye colors!", "42",
      "an empty answer"]),
    (["relational conditional rationally generalizations oscillators"],
     ["relate condition rational generalization oscillate"]),
    (["{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Rome\"}}"],
     ["{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Roma\", \"days\": 3}}"]),
    (["SELECT name FROM users WHERE age > 30;"], ["SELECT name, age FROM users WHERE age >= 30"]),
    (["a a a b b c " * 20], ["a b c " * 30]),
]

WORDS = """caresses ponies ties caress cats dies flies agreed feed bled plastered motoring sing
conflated troubled sized hopping tanned falling hissing fizzed failing filing happy sky enjoy say by spy
relational conditional rational valenci hesitanci digitizer conformabli radicalli differentli vileli
analogousli vietnamization predication operator feudalism decisiveness hopefulness callousness formaliti
sensitiviti sensibiliti triplicate formative formalize electriciti electrical hopeful goodness revival
allowance inference airliner gyroscopic adjustable defensible irritant replacement adjustment dependent
adoption homologou communism activate angulariti homologous effective bowdlerize probate rate cease controll
roll skies dying lying tying news innings inning outings outing cannings canning howe proceed exceed succeed
died tied spied tried geology archaeology theology biology apology skillfully gratefully wonderfully
generalizations oscillators yyyy yyyyed yying ayyy boyish employment played saying eying ied ies ing eed
bed red being seeing agreeing using aged owed at it iz bl ated bling izing 1980s 3rds 10ing b2b 4ed
allied alliances totally formally equally ally finally basically rationally traditionally orally
possibly nobly reliability abilities libraries ionion vision station opinion million allotted controlled
travelling travelled ll fully full fulls ness nesses organization organizational organizer nationalism
""".split()
PREFIXES = ["", "b", "tr", "ay", "oat", "trouble", "private", "or", "yel", "con", "st", "ion", "x2"]
SUFFIXES = """s es ies sses ss ed eed ied ing y ational tional enci anci izer abli bli alli entli eli ousli
ization ation ator alism iveness fulness ousness aliti iviti biliti fulli logi icate ative alize iciti ical
ful ness al ance ence er ic able ible ant ement ment ent sion tion ion ou ism ate iti ous ive ize e ll le
ated bled ized lling ssed zzing tting wing xed ying""".split()


def main():
    rouge = rouge_scorer.RougeScorer(["rougeL"], use_stemmer=True)
    stemmer = porter.PorterStemmer()
    rng = random.Random(1)
    vocabulary = "a , . b 1 2.5 cat cats the - / running ran ü 中 (x) 3-4".split()
    sets = list(SETS)
    for _ in range(12):
        n = rng.randint(1, 6)
        texts = [[" ".join(rng.choices(vocabulary, k=rng.randint(0, 14))) for _ in range(n)]
                 for _ in range(2)]
        sets.append((texts[0], texts[1]))
    for got, want in sets:
        print(json.dumps({
            "got": got, "want": want,
            "bleu": sacrebleu.corpus_bleu(got, [want], smooth_method="exp", tokenize="13a").score,
            "rouge_l": [rouge.score(w, g)["rougeL"].fmeasure for g, w in zip(got, want)]}))
    words = sorted(set(WORDS) | {p + s for p in PREFIXES for s in SUFFIXES})
    for i in range(0, len(words), 16):
        print(json.dumps({"stems": [[w, stemmer.stem(w)] for w in words[i:i + 16]]}))


main()
