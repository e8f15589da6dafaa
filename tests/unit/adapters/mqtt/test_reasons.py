from bridge.adapters.mqtt import reasons


def test_a_known_code_is_said_in_words_with_a_remedy() -> None:
    assert reasons.explain(reasons.SUBACK, 0x87) == (
        "not authorized (0x87). Give the bridge's user its rights in the broker: `endpoint-bridge acl` prints them."
    )


def test_session_taken_over_names_the_client_id() -> None:
    assert "client id" in reasons.explain(reasons.DISCONNECT, 0x8E)


def test_an_unknown_code_is_shown_as_a_number() -> None:
    assert reasons.explain(reasons.CONNACK, 0xFE) == "reason code (0xFE). Look into the broker's log for the reason."
