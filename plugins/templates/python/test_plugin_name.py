import json
import unittest

from componentize_py_types import Err
from plugin_name import Description, Middleware
from wit_world.imports.types import HeaderEdit_Set, RequestHead

REQUEST = RequestHead("GET", False, "/", [])


class TheMiddleware(unittest.TestCase):
    def test_says_what_it_is(self):
        about = Description().describe()
        self.assertEqual(about.name, "pluginName")
        self.assertEqual(json.loads(about.config_schema)["required"], ["text"])

    def test_puts_the_text_into_the_header(self):
        middleware = Middleware()
        middleware.init('{"text": "grüezi"}')
        verdict, state = middleware.on_request(REQUEST)
        self.assertEqual(verdict.value.headers, [HeaderEdit_Set(("x-plugin-name", "grüezi".encode()))])
        self.assertEqual(state, b"")

    def test_refuses_a_text_that_is_no_header(self):
        with self.assertRaises(Err) as refused:
            Middleware().init('{"text": "a\\nb"}')
        self.assertIn("`text`", refused.exception.value.message)


if __name__ == "__main__":
    unittest.main()
