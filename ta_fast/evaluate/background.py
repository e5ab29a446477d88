"""Intents that no tool serves: what a model does by itself, in our own words.

Their mean embedding tells how much a turn looks like one of them, whatever the catalog.
A sixth of them come with a text to work on, as such turns do.
"""

from __future__ import annotations

BACKGROUND = (
    "Hello, how are you today?",
    "Thank you, that was very helpful.",
    "Tell me a joke.",
    "What do you think about this idea?",
    "Explain the theory of evolution in simple words.",
    "Why is the sky blue?",
    "What is the difference between a virus and a bacterium?",
    "Who wrote this famous novel?",
    "What caused the First World War?",
    "How does a refrigerator work?",
    "What does this proverb mean?",
    "Define the word gratitude.",
    "Write a poem about autumn.",
    "Write a short story about a lonely robot.",
    "Write an essay on the causes of poverty.",
    "Write a speech for my friend's wedding.",
    "Compose a cover letter for this position.",
    "Draft a paragraph that introduces our company.",
    "Come up with a slogan for a bakery.",
    "Give me ten ideas for a birthday party.",
    "Suggest names for my new cat.",
    "Rewrite this sentence so that it sounds more formal.",
    "Paraphrase the following paragraph.",
    "Correct the grammar of this text.",
    "Shorten the text below to two sentences.",
    "Summarize the following article.",
    "Translate this sentence into French.",
    "Classify the following review as positive or negative.",
    "Given the passage, answer the question.",
    "Does the second sentence follow from the first one? Answer yes or no.",
    "Find the nouns in this sentence.",
    "Sort these words into categories.",
    "Fill in the blank with the right word.",
    "Convert the bullet points into a table.",
    "Extract the names of people from the text.",
    "How can I become more confident?",
    "How do I stay motivated at work?",
    "What should I say to a friend who is sad?",
    "What are the advantages and disadvantages of working from home?",
    "How do I prepare for a job interview?",
    "Give me advice on how to manage my time.",
    "Is it better to rent or to own?",
    "How do I get a stain out of a shirt?",
    "How do you make a paper plane?",
    "What can I do against a headache?",
    "Why do people dream?",
    "If a man has three apples and gives two away, how many has he left?",
    "Which number comes next in this series?",
    "Solve this riddle.",
    "What would someone do after waking up?",
    "Where would you put a plate after washing it?",
    "What might happen if you forget an umbrella?",
    "Write a function that reverses a string.",
    "Explain what this piece of code does.",
    "What does this error message mean?",
    "How do I sort a list in Python?",
    "Compare these two philosophers.",
    "List the main themes of this play.",
    "Describe a sunset on the sea.",
    "Pretend to be a pirate and greet me.",
    "Make this argument more convincing.",
    "Argue for and against the death penalty.",
    "What is the meaning of life?",
    "Describe how to bake bread.",
    "Name three historic figures known for courage.",
    "What is the capital of a country?",
    "Write the dialogue of two people who meet again.",
    "Write lyrics of a song about summer.",
    "Explain to a child what gravity is.",
    "What are the steps of the scientific method?",
    "How do plants make food?",
    "Invent a character for a fantasy story.",
    "Edit this email so that it is shorter.",
    "Tell me more about that.",
    "Can you repeat that more slowly?",
    "What did you mean by your last answer?",
    "Summarize this text in one sentence. The old lighthouse stood at the end of the pier "
    "for more than a century. When the harbour was rebuilt, the council wanted to tear it "
    "down, but the fishermen of the village collected money and turned it into a small "
    "museum that is open on Sundays.",
    "Read the passage and answer the question. Marta left the house at seven, took the tram"
    " to the market, bought bread and pears, and met her brother by the fountain at nine. "
    "Where did Marta meet her brother?",
    "Is the tone of this review positive, negative or neutral? The waiter forgot our drinks"
    " twice and the soup was cold, but the view over the valley and the dessert made up for"
    " all of it. We would come back in spring.",
    "Rewrite this message so that it sounds friendlier. You sent me the wrong numbers "
    "again. I need the right ones before noon, and I do not want to explain the same thing "
    "a third time.",
    "Correct the mistakes in the following text. Yesterday I goes to the library for return"
    " the books what I has borrow, but it were closed because of an holiday, so I was "
    "walked home in the rain.",
    "A farmer has seventeen sheep and sells all but nine of them. Later he buys twice as "
    "many goats as he has sheep left, and gives three goats to his neighbour. How many "
    "animals does he have now? Think step by step.",
    "I live with two friends, and one of them never washes the dishes although we agreed on"
    " a plan. I do not want to fight with her, but it annoys me more every week. How should"
    " I bring it up without hurting her feelings?",
    "Explain what this query does and how it could be simpler. SELECT name FROM (SELECT "
    "name, count(*) AS n FROM visits GROUP BY name) AS t WHERE n > 3 ORDER BY n DESC",
    "Write a dialogue between a grandmother and her grandson in which she explains how "
    "people kept food fresh before there were fridges. It should be warm and funny and have"
    " about two hundred words.",
    "Put the sentences into the right order. Then she opened the letter. She heard the bell"
    " and went to the door. It was from her sister. The postman handed her an envelope.",
    "Find all adjectives in the sentence and say what each one describes. The tired "
    "travellers reached a quiet village under a pale moon and slept in a narrow barn.",
    "What is wrong with this argument? Everybody I know likes coffee, so coffee must be the"
    " most popular drink in the world, and those who prefer tea have simply never had good "
    "coffee.",
    "Act as a teacher of history. Explain to a class of ten-year-olds in five short "
    "paragraphs how people built castles, why they needed them and what daily life inside "
    "the walls was like.",
    "Continue the story. The train stopped in the middle of the forest, and the lights went"
    " out one carriage after another. Nobody spoke. Then, from somewhere near the engine, "
    "we heard somebody sing.",
)
"""Ninety intents, each on its own."""
