"""MovieLens is read from its authors' files and from TensorFlow Datasets."""

import hashlib

import pytest

from settings.errors import ConfigError, DataError, StorageError
from tests.conftest import SHARED_DATA
from tests.data.ratings.common import (
    AUTHORS_FILES,
    THREE_ITEMS,
    THREE_RATINGS,
    authors_bytes,
    items_of,
    load,
    rows_of,
    write_zip,
)
from trainer.data.ratings import accounts

needs_movielens = pytest.mark.skipif(
    not SHARED_DATA.is_dir(), reason=f"MovieLens 100K may not be redistributed, and is not at {SHARED_DATA}"
)


@pytest.mark.parametrize("layout", AUTHORS_FILES)
@pytest.mark.parametrize("subfolder", ["", "ml-tiny/"])
@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_reads_movielens_as_its_authors_distribute_it(tmp_path, layout, subfolder, kind):
    members = {subfolder + name: data for name, data in authors_bytes(layout).items()}
    members["README.txt"] = b"Not a table."
    if kind == "zip":
        source = write_zip(tmp_path / "ml.zip", members)
    else:
        source = tmp_path / "ml"
        for name, data in members.items():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes(data)
    ratings = load(source)
    assert rows_of(ratings) == THREE_RATINGS
    assert items_of(ratings) == THREE_ITEMS
    assert list(items_of(ratings)) == ["10", "20", "40", "30"]
    assert ratings.report == {"read": 3, "used": 3, "duplicate": 0, **dict.fromkeys(accounts.BAD, 0)}


def test_titles_may_contain_colons_and_latin_1_control_characters(tmp_path):
    (tmp_path / "ratings.dat").write_bytes(b"1::7::4::5\r\n")
    (tmp_path / "movies.dat").write_bytes(b"7::Alien :: Part\x85 2: x (1992)::Horror|Sci-Fi\r\n")
    assert items_of(load(tmp_path)) == {"7": ("Alien :: Part\x85 2: x (1992)", ["Horror", "Sci-Fi"])}


def test_a_file_of_items_with_other_columns_is_reported(tmp_path):
    (tmp_path / "u.data").write_text("1\t2\t3\t4\n")
    (tmp_path / "u.item").write_text("only|two\n")
    with pytest.raises(DataError, match=r"u\.item does not have the rows.*config\.data\.columns"):
        load(tmp_path)


def test_a_file_of_items_with_an_unclosed_quote_is_reported(tmp_path):
    (tmp_path / "ratings.csv").write_text("userId,movieId,rating,timestamp\n1,2,3,4\n")
    (tmp_path / "movies.csv").write_text('movieId,title,genres\n2,"Two,Drama\n3,Three,War\n4,"Four",War\n')
    with pytest.raises(DataError, match=r"movies\.csv does not have the rows of the file movies\.csv of MovieLens"):
        load(tmp_path)


def test_a_file_of_ratings_with_other_columns_is_reported(tmp_path):
    (tmp_path / "ratings.csv").write_text("user,item,stars,time\n1,2,3,4\n")
    (tmp_path / "movies.csv").write_text("movieId,title,genres\n2,Two,Drama\n")
    with pytest.raises(DataError, match=r"ratings\.csv has no column 'userId'.*another dataset's"):
        load(tmp_path)


@needs_movielens
def test_movielens_100k_is_the_same_from_its_authors_and_from_tensorflow_datasets(capfd):
    authors = load(SHARED_DATA / "ml-100k")
    prepared = load("movielens/100k", data_dir=str(SHARED_DATA / "tfds"))
    rows = rows_of(authors)
    assert len(rows) == 100_000
    assert sorted(rows) == sorted(rows_of(prepared))
    assert len({user for user, *_ in rows}) == 943
    assert rows[:2] == [("196", "242", 3.0, 881250949), ("186", "302", 3.0, 891717742)]

    items, prepared_items = items_of(authors), items_of(prepared)
    assert len(items) == 1682
    assert len({title for title, _ in items.values()}) == 1664
    assert {item: title for item, (title, _) in items.items()} == {
        item: title for item, (title, _) in prepared_items.items()
    }
    assert items["2"] == prepared_items["2"] == ("GoldenEye (1995)", ["Action", "Adventure", "Thriller"])
    assert items["267"] == prepared_items["267"] == ("unknown", [])
    assert "Dataset" not in "".join(capfd.readouterr())


@needs_movielens
def test_movielens_100k_by_title_in_the_order_of_the_prepared_file():
    by_id = load("movielens/100k", data_dir=str(SHARED_DATA / "tfds"))
    by_title = load("movielens/100k", data_dir=str(SHARED_DATA / "tfds"), item_identity="title")
    titles = {item: title for item, (title, _) in items_of(by_id).items()}
    assert rows_of(by_title) == [(user, titles[item], *rest) for user, item, *rest in rows_of(by_id)]
    assert len(items_of(by_title)) == 1664
    assert rows_of(by_title)[0][:2] == ("138", "One Flew Over the Cuckoo's Nest (1975)")


def test_an_unknown_dataset_is_reported_with_the_known_ones():
    with pytest.raises(ConfigError, match=r"config\.data\.source is 'movielens/2m'.*movielens/latest-small"):
        load("movielens/2m")


def test_a_failed_download_reports_where_to_put_which_file(tmp_path, monkeypatch, capfd, caplog):
    def no_network(*args, **kwargs):
        raise OSError("no network")

    monkeypatch.setattr("urllib.request.urlopen", no_network)
    with pytest.raises(StorageError) as raised:
        load("movielens/1m", data_dir=tmp_path)
    message = str(raised.value)
    assert "https://files.grouplens.org/datasets/movielens/ml-1m.zip" in message
    assert f"{tmp_path}/downloads/manual/ml-1m.zip" in message
    assert "no network" in message
    assert "config.data.source to the path of ml-1m.zip" in message
    (line,) = caplog.messages
    assert "Downloading movielens/1m-ratings from https://files.grouplens.org/datasets/movielens/ml-1m.zip" in line
    assert f" to {tmp_path}/downloads, and preparing it in {tmp_path}/movielens/1m-ratings/" in line
    assert "".join(capfd.readouterr()) == ""


def test_an_archive_in_the_reported_place_is_prepared_without_network(tmp_path, monkeypatch, capfd):
    import tensorflow_datasets as tfds

    members = authors_bytes("ratings.csv")
    # TensorFlow Datasets requires every rated movie to be among the movies.
    members["movies.csv"] += b"30,Thirty (1930),IMAX\n"
    archive = tmp_path / "downloads" / "manual" / "ml-latest-small.zip"
    archive.parent.mkdir(parents=True)
    write_zip(archive, {f"ml-latest-small/{name}": data for name, data in members.items()})

    builder = tfds.builder("movielens/latest-small-ratings", data_dir=tmp_path)
    known = type(builder).url_infos[builder.builder_config.download_url]
    checksum = hashlib.sha256(archive.read_bytes()).hexdigest()
    monkeypatch.setitem(
        type(builder).url_infos,
        builder.builder_config.download_url,
        type(known)(size=archive.stat().st_size, checksum=checksum, filename=known.filename),
    )
    ratings = load("movielens/latest-small", data_dir=tmp_path)
    assert sorted(rows_of(ratings)) == sorted(THREE_RATINGS)
    assert items_of(ratings) == {**THREE_ITEMS, "30": ("Thirty (1930)", ["IMAX"])}
    assert "".join(capfd.readouterr()) == ""
