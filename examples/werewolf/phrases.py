"""The words of the questions about a game and of its story, in English and in Chinese."""

from __future__ import annotations

from dataclasses import dataclass

from game import Role, Side


@dataclass(frozen=True)
class Phrases:
    """One language. questions.py and story.py fill the braces; ``instructions`` and ``questions`` go by kind."""

    instructions: dict[str, str]
    """The rule that decides, and the form of the answer."""
    questions: dict[str, str]
    roles: dict[Role, str]
    sides: dict[Side, str]
    player: str
    nobody: str
    yes: str
    no: str
    comma: str
    space: str
    """Between two sentences."""
    both: str
    """Between two players of an answer."""
    checks: str
    checked_good: str
    checked_werewolf: str
    quote: str
    claims: tuple[str, ...]
    suspicions: tuple[str, ...]
    night: str
    attack: str
    heal: str
    poison: str
    witch_rests: str
    votes: str
    vote: str
    living: str
    card: str
    seats: str
    dead: str
    out: str
    end: str


ENGLISH = Phrases(
    instructions={
        "check": "The seer's checks are always true. Name the player.",
        "suspect": "Read the speeches. Name the player.",
        "role": "Read the speeches. Name the player.",
        "claim": "The seer's checks are always true. Answer Yes or No.",
        "night": "Who is attacked or poisoned dies, unless healed. Name the dead, or Nobody.",
        "vote": "Most votes: voted out. A tie: Nobody. Name the player, or Nobody.",
        "winner": "No werewolf alive: Village. Werewolves at least half: Werewolves. Else: Nobody.",
    },
    questions={
        "check": "Who is a werewolf?",
        "suspect": "Whom does {name} suspect?",
        "role": "Who claims the role of {name}?",
        "claim": "Can this claim be true?",
        "night": "Who dies?",
        "vote": "Who is voted out?",
        "winner": "Who has won?",
    },
    roles={
        Role.WEREWOLF: "werewolf",
        Role.SEER: "seer",
        Role.WITCH: "witch",
        Role.HUNTER: "hunter",
        Role.VILLAGER: "villager",
    },
    sides={Side.VILLAGE: "Village", Side.WEREWOLVES: "Werewolves"},
    player="Player {}",
    nobody="Nobody",
    yes="Yes",
    no="No",
    comma=", ",
    space=" ",
    both=" and ",
    checks="The seer's checks: {}.",
    checked_good="{} is good",
    checked_werewolf="{} is a werewolf",
    quote='{}: "{}"',
    claims=("My card says {}.", "Believe me, my role is {}.", "I swear, my card is {}."),
    suspicions=("I suspect {}.", "{} is too quiet, I think.", "Vote for {}, please!"),
    night="Night {number}. Alive: {living}.",
    attack="The werewolves attack {}.",
    heal="The witch heals {}.",
    poison="The witch poisons {}.",
    witch_rests="The witch does nothing.",
    votes="Votes of day {number}: {votes}.",
    vote="{voter} for {target}",
    living="Alive: {}.",
    card="{player} {role}",
    seats="A game of Werewolf. The cards: {}.",
    dead="In the morning these are dead: {}.",
    out="Voted out: {}.",
    end="The winner: {}.",
)

CHINESE = Phrases(
    instructions={
        "check": "预言家的查验总是真的。请回答玩家号码。",
        "suspect": "阅读发言。请回答玩家号码。",
        "role": "阅读发言。请回答玩家号码。",
        "claim": "预言家的查验总是真的。请回答是或否。",
        "night": "被刀或被毒的玩家死亡，被救则不死。请回答死者号码或无人。",
        "vote": "票数最多者出局，平票则无人出局。请回答玩家号码或无人。",
        "winner": "没有狼人存活：好人胜。狼人达到存活人数的一半：狼人胜。否则：无人。",
    },
    questions={
        "check": "谁是狼人？",
        "suspect": "{name}怀疑谁？",
        "role": "谁自称{name}？",
        "claim": "这个身份可能是真的吗？",
        "night": "谁死了？",
        "vote": "谁被投票出局？",
        "winner": "谁获胜了？",
    },
    roles={
        Role.WEREWOLF: "狼人",
        Role.SEER: "预言家",
        Role.WITCH: "女巫",
        Role.HUNTER: "猎人",
        Role.VILLAGER: "村民",
    },
    sides={Side.VILLAGE: "好人", Side.WEREWOLVES: "狼人"},
    player="{}号",
    nobody="无人",
    yes="是",
    no="否",
    comma="，",
    space="",
    both="和",
    checks="预言家的查验：{}。",
    checked_good="{}是好人",
    checked_werewolf="{}是狼人",
    quote="{}：“{}”",
    claims=("我是{}。", "请相信我，我是{}。", "我的底牌是{}。"),
    suspicions=("我怀疑{}。", "我觉得{}话太少了。", "请大家投{}！"),
    night="第{number}夜。存活：{living}。",
    attack="狼人刀{}。",
    heal="女巫救{}。",
    poison="女巫毒{}。",
    witch_rests="女巫没有用药。",
    votes="第{number}天投票：{votes}。",
    vote="{voter}投{target}",
    living="存活：{}。",
    card="{player}号{role}",
    seats="一局狼人杀。底牌：{}。",
    dead="天亮了，昨夜死亡：{}。",
    out="被投票出局：{}。",
    end="获胜阵营：{}。",
)
