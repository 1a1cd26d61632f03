from src.data.treebanks.vocabulary import CharacterVocabulary, WordVocabulary


def test_words_are_counted_without_case_and_digits():
    forms = ["The", "the", "in", "1984", "2026", "x", "THE"]
    words = WordVocabulary.learn(forms, lower=True, min_count=1)
    assert words.words == ["the", "0000", "in", "x"]
    assert len(words) == 6
    assert words.encode(["tHe", "1066", "x", "y", ""]).tolist() == [2, 3, 5, 1, 1]
    rarer = WordVocabulary.learn(forms, lower=False, min_count=2)
    assert rarer.words == ["0000"]
    assert rarer.encode(["The", "1984"]).tolist() == [1, 2]
    assert WordVocabulary(words.words, True).encode(["in"]).tolist() == [4]


def test_characters_have_ends_and_long_words_keep_theirs():
    characters = CharacterVocabulary.learn(["abc", "abc", "ab1", "22", "é"], longest=4)
    assert characters.characters == "0abc"
    assert len(characters) == 8
    rows = characters.encode(["a7", "é", "abcabc", "cccbbb", ""])
    assert rows.tolist() == [
        [2, 5, 4, 3, 0, 0],
        [2, 1, 3, 0, 0, 0],
        [2, 5, 6, 6, 7, 3],
        [2, 7, 7, 6, 6, 3],
        [2, 3, 0, 0, 0, 0],
    ]
    odd = CharacterVocabulary("abc", longest=3)
    assert odd.encode(["abccc"]).tolist() == [[2, 4, 5, 6, 3]]
