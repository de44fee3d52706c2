"""The smoke base's text: French requirements, written from a seeded template.

Everything the smoke run learns from stands here, so it needs no download. No third-party library:
the host may write the data without the training stack. Three readers, three functions:

- `fine_tuning_rows`: the task. A requirement in; its priority and type out, as JSON.
- `pretraining_turns`: the base's chat turns. They show the task's form, never its mapping: a JSON
  answer there holds values drawn at random.
- `tokenizer_lines`: those turns, and general French, English and Python, so that a data set of
  one's own is not cut into single bytes.

Run as `python -m trainer.base.smoke_corpus` to write the repository's two data files.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from contract.atomic_write import atomic_write

ROLES = ("system", "user", "assistant")  # the chat template writes one a turn: one piece each
CLASSIFY = "Classe l'exigence en JSON."
QUOTE = "Relève le verbe et l'action en JSON."
REPEAT = "Répète le texte."
TURN_WEIGHTS = (4, 3, 3)  # of the three above
GENERAL_SHARE = 0.4  # of the texts to repeat: common words instead of a requirement
PLURAL_SHARE, OPENING_SHARE, ENDING_SHARE = 0.5, 0.3, 0.5

TRAINING_ROWS = 720
HELD_OUT_ROWS = 120  # drawn; a few of them are left out again
LEAK_WORDS = 12  # of 13-grams, less one for an apostrophe, which parts two words there
ROWS_SEED = 20_240_901
TURNS_SEED = 20_240_902
TOKENIZER_SEED = 20_240_903


class Requirement(NamedTuple):
    """One sentence and the two parts of it that matter."""

    sentence: str
    modal: str  # tells the priority
    action: str  # tells the type


def fine_tuning_rows() -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    """Training and held-out rows, without held-out ones that a trained sentence says and more.

    Evaluating would refuse them: trainer/questions/leakage.py.
    """
    training, held_out = _drawn_rows()
    trained = [row["input"].rstrip(".").casefold() for row in training]
    return training, [
        row
        for row in held_out
        if len(row["input"].split()) < LEAK_WORDS
        or not any(row["input"].rstrip(".").casefold() in other for other in trained)
    ]


def _drawn_rows() -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    """Both, each priority and type alike often, no sentence twice."""
    rng = random.Random(ROWS_SEED)
    cells = [(priority, kind) for priority in PRIORITIES for kind in TYPES]
    rows: dict[str, dict[str, str]] = {}  # by sentence
    while len(rows) < TRAINING_ROWS + HELD_OUT_ROWS:
        priority, kind = cells[len(rows) % len(cells)]
        sentence = draw_requirement(rng, priority, kind).sentence
        output = as_json({"priorite": priority, "type": kind})
        row = {"instruction": CLASSIFY, "input": sentence, "output": output}
        rows.setdefault(sentence, row)
    training = list(rows.values())[:TRAINING_ROWS]
    held_out = list(rows.values())[TRAINING_ROWS:]
    rng.shuffle(training)  # the cells came in turn; whoever reads the first rows should see a mix
    rng.shuffle(held_out)
    return training, held_out


def draw_requirement(rng: random.Random, priority: str, kind: str) -> Requirement:
    """Its modal verb tells the priority and its action the type; the rest tells neither."""
    plural = rng.random() < PLURAL_SHARE
    subject = rng.choice(PLURAL_SUBJECTS if plural else SINGULAR_SUBJECTS)
    modal = PRIORITIES[priority][plural]
    action = rng.choice(TYPES[kind])
    opening = rng.choice(OPENINGS) + ", " if rng.random() < OPENING_SHARE else ""
    ending = " " + rng.choice(ENDINGS) if rng.random() < ENDING_SHARE else ""
    sentence = f"{opening}{subject} {modal} {action}{ending}."
    return Requirement(sentence[0].upper() + sentence[1:], modal, action)


def as_json(values: dict[str, str]) -> str:
    """An answer as the model must write it, to the character."""
    return json.dumps(values, ensure_ascii=False)


def pretraining_turns() -> Iterator[tuple[str, str]]:
    """Endless (user, assistant) turns that show the task's form and its words, not its mapping.

    The answer is the text said again, the two parts that matter quoted from it, or the task's own
    JSON with values drawn at random. What the base never saw here it would not learn in a minute.
    """
    rng = random.Random(TURNS_SEED)
    held_out = {row["input"] for row in _drawn_rows()[1]}
    priorities, kinds = list(PRIORITIES), list(TYPES)
    while True:
        drawn = draw_requirement(rng, rng.choice(priorities), rng.choice(kinds))
        if drawn.sentence in held_out:
            continue  # what is measured later stays unseen here too
        instruction = rng.choices((CLASSIFY, QUOTE, REPEAT), TURN_WEIGHTS)[0]
        text = drawn.sentence
        if instruction == CLASSIFY:
            reply = as_json({"priorite": rng.choice(ANY_PRIORITY), "type": rng.choice(ANY_TYPE)})
        elif instruction == QUOTE:
            reply = as_json({"verbe": drawn.modal, "action": drawn.action})
        else:
            text = reply = _general_line(rng) if rng.random() < GENERAL_SHARE else text
        yield f"{instruction}\n\n{text}", reply


def tokenizer_lines() -> Iterator[str]:
    """Lines for the tokenizer: the turns, and general French, English and Python."""
    rng = random.Random(TOKENIZER_SEED)
    turns = pretraining_turns()
    for _ in range(2_000):
        user, assistant = next(turns)
        yield from user.split("\n\n")
        yield assistant
        yield from ROLES
    for _ in range(9_000):
        yield _general_line(rng)
    for _ in range(2_000):
        yield from _python_lines(rng)


def _general_line(rng: random.Random) -> str:
    return rng.choice((_word_salad, _word_salad, _word_problem))(rng)


def _word_salad(rng: random.Random) -> str:
    """Common words in no order: enough for a tokenizer, which reads no grammar."""
    lexicon = rng.choice((FRENCH, ENGLISH))
    drawn = [rng.choice(lexicon) for _ in range(rng.randint(3, 8))]
    drawn.insert(rng.randrange(len(drawn)), str(rng.randrange(2_000)))
    text = rng.choice((" ", " ", " ", ", ")).join(drawn)
    return text[0].upper() + text[1:] + rng.choice(END_MARKS)


def _word_problem(rng: random.Random) -> str:
    name, thing = rng.choice(NAMES), rng.choice(THINGS)
    left, right = rng.randint(2, 99), rng.randint(2, 99)
    values = {"left": left, "right": right, "total": left + right, "product": left * right}
    return rng.choice(WORD_PROBLEMS).format(name=name, thing=thing, **values)


def _python_lines(rng: random.Random) -> list[str]:
    noun, verb, number = rng.choice(THINGS), rng.choice(ENGLISH), str(rng.randrange(1_000))
    snippet = rng.choice(SNIPPETS)
    return snippet.replace("NOUN", noun).replace("VERB", verb).replace("NUM", number).split("\n")


def main() -> None:
    """Write `data/training/smoke.jsonl` and `data/evaluation/smoke.jsonl` of this repository."""
    root = Path(__file__).resolve().parents[2]
    for name, rows in zip(("training", "evaluation"), fine_tuning_rows(), strict=True):
        path = root / "data" / name / "smoke.jsonl"
        atomic_write(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
        print(f"{path.relative_to(root).as_posix()}: {len(rows)} rows")


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


def _phrases(text: str) -> tuple[str, ...]:
    return tuple(" ".join(phrase.split()) for phrase in text.split("|"))


PRIORITIES = {  # value: modal verb, singular and plural
    "haute": ("doit", "doivent"),
    "moyenne": ("devrait", "devraient"),
    "basse": ("peut", "peuvent"),
}
TYPES = {
    "sécurité": _phrases("""
        chiffrer les mots de passe | refuser les accès anonymes | journaliser chaque connexion |
        vérifier la signature des fichiers | bloquer les comptes suspects | exiger une double
        authentification
    """),
    "performance": _phrases("""
        répondre en moins de deux secondes | traiter mille commandes par minute | charger les pages
        sans attente | limiter la mémoire utilisée | réduire le temps de calcul | compresser les
        images volumineuses
    """),
    "ergonomie": _phrases("""
        afficher une aide contextuelle | proposer un thème sombre | agrandir les boutons du menu |
        rappeler la dernière recherche | expliquer les erreurs de saisie | offrir des raccourcis
        clavier
    """),
    "disponibilité": _phrases("""
        redémarrer après une panne | basculer vers le serveur de secours | rester accessible la
        nuit | conserver une copie hors site | tolérer la perte d'un disque | reprendre les envois
        interrompus
    """),
    "conformité": _phrases("""
        respecter la norme européenne | effacer les dossiers périmés | recueillir le consentement
        écrit | archiver les factures dix ans | citer les mentions légales | déclarer les incidents
        au régulateur
    """),
    "maintenance": _phrases("""
        séparer le code en modules | documenter les interfaces publiques | exécuter les tests
        automatiques | signaler les dépendances obsolètes | isoler la configuration | numéroter
        chaque version livrée
    """),
}
# Other values come first and twice, so that the base's likeliest answer is never the right one.
ANY_PRIORITY = (*2 * _words("urgente normale faible critique mineure nulle"), *PRIORITIES)
ANY_TYPE = (
    *2 * _words("interface formation réseau qualité stockage livraison finance recherche accueil"),
    *TYPES,
)
SINGULAR_SUBJECTS = _phrases("""
    le portail client | le service de paiement | l'application mobile | la base documentaire | le
    module de facturation | la plateforme de vente | l'outil de suivi
""")
PLURAL_SUBJECTS = _phrases("""
    les bornes en magasin | les agents du support | les modules externes | les serveurs régionaux
    | les partenaires agréés | les comptes invités
""")
OPENINGS = _phrases("""
    chaque semaine | dès la mise en service | pendant la phase pilote | selon le contrat | à terme
""")
ENDINGS = _phrases("""
    pour tous les sites | dans la version finale | sans intervention humaine | à la demande du
    client | dès le premier jour | en toute circonstance
""")

END_MARKS = (".", ".", ".", "?", " !", " ;", " :", "…", ".)", "%.", " €.", " »", '".', "'s.")
NAMES = _words("Anna Ben Carla David Emma Farid Hugo Inès Jules Laura Marc Nina Omar Sarah Tom")
THINGS = _words("apple book pencil ticket cookie marble bottle flower chair coin card egg box cake")
FRENCH = _words("""
le la les un une des de du au aux et ou mais donc car ni que qui dont où si ne pas plus moins très
ce cette ces mon ma mes ton son sa ses notre nos votre vos leur leurs je tu il elle on nous vous ils
elles se sur sous dans avec sans pour par entre vers chez avant après pendant depuis contre comme
quand alors aussi encore déjà toujours jamais souvent ici là même autre tout tous toute toutes aucun
chaque plusieurs beaucoup peu trop assez est sont était sera a ont avait aura été être avoir faire
fait dire voir venir aller prendre donner mettre trouver demander répondre écrire lire ouvrir fermer
partir arriver rester porter tenir montrer passer penser jouer manger acheter vendre payer compter
calculer expliquer comprendre choisir utiliser créer ajouter envoyer recevoir garder changer aider
jour semaine mois année heure minute temps fois homme femme enfant ami maison ville pays monde école
travail vie eau terre feu lumière nuit matin soir question réponse problème exemple idée mot phrase
texte page livre nombre somme prix argent euros marché client projet équipe système fichier données
utilisateur modèle résultat erreur valeur liste ligne petit grande bon nouvelle premier dernière
long haut fort faible simple facile difficile possible nécessaire différent vrai faux rouge bleu
noir deux trois quatre cinq dix cent mille combien pourquoi comment bonjour merci oui non c'est
n'est qu'il d'une l'on j'ai s'il aujourd'hui forêt hôtel garçon leçon noël œuvre cœur août théâtre
goût
""")
ENGLISH = _words("""
the a an and or but not no so if then else because while when where what which who why how of to in
on at by for from with without into over under between after before during about than as is are was
were be been being has have had do does did will would can could should may must i you he she it we
they me him her us them my your his its our their this that these those there here all any each
every some many much more most less few several other another same only also too very just still
again zero one two three four five six seven eight nine ten twelve twenty thirty fifty hundred
thousand half third quarter double twice first second last next total sum product cost price dollars
cents percent number amount rate speed distance weight length minutes hours days weeks months years
miles make take give get keep find use need want buy bought sell sold spend spent earn earned eat
cook read write run walk drive work play pay add count share start stop leave left remain help show
tell ask answer say know think see look come go put return call check build test change move open
close man woman child children friend mother father brother sister teacher student class school
house home room door table car bus train road city town park store shop farm garden tree water food
bread milk fruit dog cat bird horse money bag paper page letter word line list name file code data
value string function class error model user system server computer question problem example story
world people time day night morning week month year red blue green white black big small long short
new old good great high low fast slow early late right wrong true false empty full easy hard ready
possible Monday Friday Sunday January student's doesn't it's ing ed tion ment able ness ight ough
""")
WORD_PROBLEMS = (
    "{name} has {left} {thing}s and buys {right} more. How many in all?",
    "{name} sold {left} {thing}s on Monday and {right} {thing}s on Tuesday. What is the total?",
    "Each {thing} costs ${left}. How much does {name} pay for {right} {thing}s?",
    "There are {left} boxes with {right} {thing}s in each box, so there are {product} in all.",
    "{left} + {right} = <<{left}+{right}={total}>>{total} {thing}s. #### {total}",
    "{name} gives {left}% of the {thing}s to a friend and keeps the other {right} for the week.",
    "{name} a {left} ans et achète {right} cahiers à {left},50 € l'un. Combien paie-t-il ?",
)
SNIPPETS = (
    'def VERB_NOUN(NOUN: str, count: int = NUM) -> int:\n    """VERB."""\n    if not NOUN:\n'
    "        return 0\n    return len(NOUN) + count",
    "import os\nfrom pathlib import Path\nclass Box:\n    pass\nwhile True:\n    break",
    "for index, NOUN in enumerate(NOUNs):\n    if NOUN.VERB >= NUM:\n        result.append(NOUN)",
    "    def __init__(self, name: str) -> None:\n        self.name = name\n    else:\n",
    'with open("data/NOUN.txt", encoding="utf-8") as file:\n    print(file.read().split("\\n"))',
    "try:\n    value = int(text)\nexcept ValueError as error:\n    raise TypeError(1) from error",
    'NOUNs = {"name": "VERB", "size": NUM, "tags": ["NOUN", None, True, False]}',
    "total = sum(x * 2 for x in range(NUM) if x % 3 == 0 and x != 7)  # VERB the NOUN",
    'assert VERB(NOUN) == [1, 2, 3], f"got {NOUN!r}"\nlambda key: (key, value)',
    '{"instruction": "VERB the NOUN", "input": "", "output": "NUM"}',
    "## NOUN\n- VERB the **NOUN**: see `NOUN_VERB()` and https://example.org/NOUN?id=NUM",
)

if __name__ == "__main__":
    main()
