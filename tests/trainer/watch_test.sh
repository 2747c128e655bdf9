# Tests nibble watch: addresses, tokens and refusals, and the page in headless Chromium, which follows a run that begins
# after it, is never more than three seconds behind, and outlives the run's directory and its server.
source "$SOURCE/tests/tiny_run.sh"
tiny_data
watch_on() { # OPTION...: starts a server, and sets `server` and `url`
  : >watch.txt
  "$NIBBLE" watch "$@" >watch.txt 2>errors.txt &
  server=$!
  trap 'kill $server 2>/dev/null || true' EXIT
  for _ in $(seq 100); do
    [ -s watch.txt ] && break
    sleep 0.05
  done
  url=$(head -1 watch.txt | grep -oE 'http://[^ ]+') || { cat errors.txt; fail "the first line holds no address"; }
}
watch_off() {
  kill -INT "$server"
  local code=0
  wait "$server" || code=$?
  [ "$code" -eq 0 ] || fail "Ctrl-C ends it with $code"
}
status() { "$python" - "$@" <<'EOF2'
import http.client, sys, urllib.parse
method, url, *headers = sys.argv[1:]
parts = urllib.parse.urlsplit(url)
connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=10)
connection.request(method, parts.path + ("?" + parts.query if parts.query else ""), headers=dict(h.split(": ") for h in headers))
answer = connection.getresponse()
answer.read()
assert answer.getheader("X-Content-Type-Options") == "nosniff" or answer.status >= 400, answer.getheaders()
if answer.status == 200:
    assert "default-src 'none'" in answer.getheader("Content-Security-Policy"), answer.getheaders()
print(answer.status)
EOF2
}
is() { # CODE METHOD URL HEADER...
  local wanted=$1
  shift
  [ "$(status "$@")" = "$wanted" ] || fail "$* is $(status "$@"), not $wanted"
}

expect 64 "$NIBBLE" watch
expect 64 "$NIBBLE" watch run --host 0.0.0.0
grep -q -- --token output.txt || fail "the remedy does not name the token"
expect 64 "$NIBBLE" watch run --port 65536
expect 64 "$NIBBLE" watch run --token 'a b'

watch_on run --port 0
[[ "$url" =~ ^http://127\.0\.0\.1:[0-9]+/$ ]] || fail "the address is $url"
is 200 GET "$url"
is 200 HEAD "$url"
is 200 GET "${url}data.json"
for method in POST PUT DELETE PATCH OPTIONS PROPFIND; do is 405 $method "$url"; done
is 404 GET "${url}config.yaml"
is 404 GET "${url}../config.yaml"
is 403 GET "$url" 'Host: example.org'
is 200 GET "$url" 'Host: localhost:9000'
expect 69 "$NIBBLE" watch run --port "$(grep -oE '[0-9]+/$' <<<"$url" | tr -d /)"
grep -q -- '--port 0' output.txt || fail "the remedy for a port in use"
"$python" - "$url" <<'EOF2'
import json, sys, urllib.request
ask = lambda have: json.load(urllib.request.urlopen(sys.argv[1] + "data.json?have=" + have))["parts"]
everything = ask("")
assert {"page", "run-0", "steps-0", "telemetry-0", "configuration"} <= set(everything), everything.keys()
assert ask(",".join(part["tag"] for part in everything.values())) == {}, "what is known is sent again"
EOF2

# The run begins when the page is open.
mkfifo ready
"$python" "$SOURCE/tests/trainer/page_browser.py" live "$url" run "$server" >ready 2>browser.txt &
browser=$!
grep -q ready <ready || { cat browser.txt >&2; fail "the page in Chromium"; }
expect 0 "$NIBBLE" train tiny.yaml --set train.steps=400 --set eval.every=100 --set checkpoint.every=100
wait "$browser" || { cat browser.txt >&2; fail "the live page in Chromium"; }
code=0
wait "$server" || code=$?
[ "$code" -eq 0 ] || fail "Ctrl-C ends it with $code"

watch_on run --port 0 --token 0123456789abcdef
[[ "$url" == *"/?token=0123456789abcdef" ]] || fail "the address lacks the token"
plain=${url%%\?*}
is 200 GET "$url"
is 401 GET "$plain"
is 401 GET "${plain}data.json?token=0123456789abcdee"
is 200 GET "${plain}data.json" 'Authorization: Bearer 0123456789abcdef'
is 401 GET "$plain" 'Authorization: Bearer 0123456789abcdefg'
watch_off
echo "watch works"
