'use strict';
/*
 * Silent error monitoring for Node.js 16 and newer, in one file without dependencies.
 *
 *   node -r ./silent-error-monitoring.js app.js        SOULFRA_URL, SOULFRA_SERVICE, SOULFRA_TOKEN
 *   const monitor = require('./silent-error-monitoring.js')({ service: 'ai-router', url: 'http://127.0.0.1:3001' });
 *
 * It reports to the remediator of Soulfra Monitor what else nobody sees (docs/node.md). Its law: what is watched
 * behaves as if nobody watched. So it observes by error monitors, diagnostics channels and prototypes rather than by
 * wrappers, stays off the stacks that programs print, never throws into the program, and does its network work in a
 * thread of its own, which starts with the first thing there is to say and keeps no process alive.
 */

const { EventEmitter, errorMonitor } = require('events');
const channels = require('diagnostics_channel');
const fs = require('fs');
const os = require('os');
const path = require('path');
const perf = require('perf_hooks');
const { types } = require('util');
const threads = require('worker_threads');
const v8 = require('v8');

const VERSION = '0.1.0';
const ONE = Symbol.for('soulfra.silent-error-monitoring');

// Kept from before anybody fakes timers or clocks.
const timers = { setTimeout, clearTimeout, setInterval, clearInterval, setImmediate };
const epoch = Date.now;
const now = perf.performance.now.bind(perf.performance); // milliseconds
const { apply, getPrototypeOf, setPrototypeOf, ownKeys, defineProperty, getOwnPropertyDescriptor } = Reflect;
const then = Promise.prototype.then;

// ---------------------------------------------------------------------------------------------------- limits

const MESSAGE_LIMIT = 1000;
const TEXT_LIMIT = 4096;
const TEXT_TAKEN = 16384; // of a text that is longer, before redaction
const FRAMES_LIMIT = 50;
const CHAIN_LIMIT = 8;
const BATCH_EVENTS = 100;
const BATCH_BYTES = 900000;
const ALIKE_LIMIT = 500;
const FULL_LOOKS = 100; // at stacks, a second
const FULL_LOOKS_ALIKE = 10; // of those at errors that look alike
const SERIES_LIMIT = 2000; // of call counts
const THREAD_START = 1500; // milliseconds that our thread may take to start on a busy machine
const GRACE = 500; // milliseconds in which a rejection may still be handled
const BOUNDS = [0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0]; // seconds

// -------------------------------------------------------------------------------------------------- settings

const DEFAULTS = {
  enabled: true,
  service: '',
  url: 'http://127.0.0.1:3001',
  token: '',
  release: '',
  spool: '', // folder; '' is one of the user's
  spoolBytes: 10e6,
  spoolAge: 7 * 86400, // seconds
  overheadLimit: 5, // percent of one core
  queueEvents: 1000,
  interval: 10, // seconds between counts
  timeout: 5, // seconds for one request
  exitTimeout: 0.3, // seconds that the end of the program may wait for the remediator
  loopBlocked: 0.5, // seconds
  slow: 5, // seconds, of watched calls
  hung: 30, // seconds, of watched calls that have not come back
  memory: { window: 30, windows: 10, horizon: 3600, share: 0.25, full: 0.9 },
  handles: { full: 0.8 },
  forwardRejections: false, // Express 4: hand rejections of handlers to next(); changes behaviour, so ask for it
  without: [], // sources to leave out, by name
  logLevel: 'warning', // of what we say about ourselves on stderr; 'critical' is nothing
};

const VARIABLES = {
  enabled: ['ERROR_MONITORING_ENABLED', (text) => !/^(0|false|no|off)$/i.test(text.trim())],
  service: ['SOULFRA_SERVICE', String],
  url: ['SOULFRA_URL', String],
  token: ['SOULFRA_TOKEN', String],
  release: ['SOULFRA_RELEASE', String],
  spool: ['SOULFRA_SPOOL', String],
  overheadLimit: ['MONITORING_OVERHEAD_LIMIT', (text) => Number.parseFloat(text) || DEFAULTS.overheadLimit],
  without: ['SOULFRA_WITHOUT', (text) => text.split(',').map((name) => name.trim())],
  logLevel: ['ERROR_LOG_LEVEL', (text) => text.trim().toLowerCase()],
  forwardRejections: ['SOULFRA_EXPRESS_FORWARD', (text) => /^(1|true|yes|on)$/i.test(text.trim())],
};

/** Options win over the environment, and that over the defaults. Throws TypeError for what cannot be used. */
function readSettings(options = {}) {
  const settings = { ...DEFAULTS };
  for (const [name, [variable, read]] of Object.entries(VARIABLES)) {
    if (process.env[variable]) settings[name] = read(process.env[variable]);
  }
  if (process.env.SOULFRA_NODE === 'off') settings.enabled = false;
  for (const [name, value] of Object.entries(options)) {
    if (!(name in DEFAULTS))
      throw new TypeError(`${name} is no setting; there are ${Object.keys(DEFAULTS).join(', ')}`);
    if (value === undefined) continue;
    settings[name] = name === 'memory' || name === 'handles' ? { ...DEFAULTS[name], ...value } : value;
  }
  const url = new URL(settings.url); // throws TypeError
  if (!/^https?:$/.test(url.protocol)) throw new TypeError('url must be an address of http or https');
  if (url.username || url.password) throw new TypeError('url must not hold credentials; give the token as token');
  settings.url = settings.url.replace(/\/+$/, '');
  settings.service = nameOf(settings.service || programName());
  return settings;
}

function nameOf(text) {
  return (
    String(text)
      .replace(/[^A-Za-z0-9_.-]+/g, '-')
      .replace(/^[_.-]+/, '')
      .slice(0, 63) || 'node'
  );
}

function programName() {
  const script = process.argv[1] || '';
  const stem = path.basename(script, path.extname(script));
  return stem === 'index' || stem === 'server' ? path.basename(path.dirname(script)) : stem;
}

// ------------------------------------------------------------------------------------------------- redaction
// The rules of soulfra_monitor/redaction/; tests/clients holds them together.
// Every pattern is bounded or starts once per run of its characters: the time grows with the length and no faster.

const MASK = '***';
const FAILED = '[redaction failed]';
const DEPTH_LIMIT = 32;
const WIDTH_LIMIT = 100;
const raw = String.raw;
const words = (text) => new Set(text.split(/\s+/).filter(Boolean));

const SECRET_WORDS =
  words(`password passwd pwd passphrase passcode passwort kennwort contrasena senha secret secrets token
  jwt bearer authorization cookie cookies credential credentials creds apikey apikeys apitoken authtoken accesstoken
  refreshtoken accesskey secretkey privatekey clientsecret sessionid sessionkey csrf xsrf csrftoken otp totp pin cvv cvc
  ssn iban requirepass masterauth pgpass pw pword passin passout`);
const SECRET_PAIRS = words(`api/key api/keys access/key access/tokens account/key auth/key auth/tokens card/number
  connect/sid encryption/key host/key license/key master/key pass/phrase private/key recovery/code refresh/tokens secret/key session/id
  session/key shared/key signing/key two/factor`);
const HARMLESS_ENDINGS =
  words(`count counts limit limits type name length size expiry expires expired ttl age usage used
  budget total file path url uri endpoint policy rate cost per valid invalid missing required error errors set`);
const WEAK_WORDS = words('auth pass session sid sig signature pat');
const NO_PASSWORDS = words(`all backward band boarding build by com compile did final first forward high last low multi
  next one optimizer over previous render second season single test tests third two under`);
const NAME_KEYS = words('name key header field column parameter param option variable env');
const VALUE_KEYS = words('value val values content data old new before after default');
const STEM = new RegExp(
  raw`passw(?:or)?d|passphrase|passcode|passwort|secret(?!ar)|api(?:key(?!b)|token)` +
    raw`|(?:access|private|account|signing|encryption|shared)key|token(?![si])|(?:access|refresh|auth|api)tokens` +
    raw`|(?:db|pg|sql|user|admin|root|smtp|mail|redis|login|ftp|auth|store|key)pass$|credential|authorization|setcookie` +
    raw`|session(?:id|key)|csrf|xsrf`
);
const KEY_HINTS = new RegExp(
  raw`pass|pw|secret|senha|kennwort|contrasena|token|key|jwt|auth|cook|cred|srf|bearer|basic|session|signature|card` +
    raw`|factor|iban|--user|-u|mysql|redis-cli|login|identified|cvv|cvc|mongo|sqlcmd|ldap|plink` +
    raw`|recovery|cqlsh|mosquitto|zip|7z|verification|one-time|2fa|mfa|psql|pg_|ipmitool|rar |openssl|sqlplus|htpasswd` +
    raw`|rabbitmqctl|vault|lftp`
);
const SHORT_HINT = /[OoPpSsCc](?:tp|TP|in|IN|sn|SN|id|ID|ig|IG|at|AT)(?![a-z])/;
const WORD = /[A-Z]+(?![a-z])|[A-Z]?[a-z]+/g;

const wordsOf = (key) => (key.slice(0, 128).match(WORD) || []).map((word) => word.toLowerCase());

/** Whether a value under *key* is to be masked: by its words, or by a part of it without separators. */
function isSecretKey(key) {
  const parts = wordsOf(key);
  if (!parts.length || HARMLESS_ENDINGS.has(parts[parts.length - 1])) return false;
  return (
    parts.some((word, at) => SECRET_WORDS.has(word) || SECRET_PAIRS.has(`${word}/${parts[at + 1]}`)) ||
    (parts.length > 1 && parts[parts.length - 1] === 'pass'
      ? !NO_PASSWORDS.has(parts[parts.length - 2])
      : STEM.test(parts.join('')))
  );
}

/** Whether *key* names a secret if it stands in data, and something else in a sentence. */
function isWeakKey(key) {
  const parts = wordsOf(key);
  return parts.length > 0 && WEAK_WORDS.has(parts[parts.length - 1]);
}

/** A pattern that takes letters of either case, inside of one that does not. */
const caseless = (source) =>
  source.replace(/\\.|[a-z]/g, (one) => (one.length > 1 ? one : `[${one.toUpperCase()}${one}]`));

function maskCard(found, ...rest) {
  const text = rest[rest.length - 1];
  const offset = rest[rest.length - 2];
  const digits = found.replace(/[ -]/g, '');
  if (/[A-Za-z0-9_.-]/.test(text[offset - 1] || '') || !CARD.test(digits)) return found;
  const sum = [...digits].reverse().reduce((total, digit, at) => {
    const value = Number(digit) * (at % 2 ? 2 : 1);
    return total + (value > 9 ? value - 9 : value);
  }, 0);
  return sum % 10 ? found : MASK;
}

const CARD = new RegExp(
  raw`^(?:4(?:\d{12}|\d{15}|\d{18})|5[1-5]\d{14}|2(?:2[2-9]|[3-6]\d|7[01])\d{13}|3[47]\d{13}|3(?:0[0-5]|[68]\d)\d{11}` +
    raw`|35\d{14}|6(?:011|5\d\d|4[4-9]\d)\d{12}|62\d{14,17})$`
);

function maskIban(found) {
  const text = found.replace(/ /g, '');
  let rest = 0;
  for (const letter of text.slice(4) + text.slice(0, 4)) {
    for (const digit of String(Number.parseInt(letter, 36))) rest = (rest * 10 + Number(digit)) % 97;
  }
  return rest === 1 ? MASK : found;
}

// Tells what somebody drew by lot, or made up as a password, from what people and programs call things: by how often it
// goes from letters to digits and back, and by how few of its letters stand in runs that could be words.
const RANDOM_LENGTH = 30; // of the shortest word that can be random by itself: most identifiers are shorter
const SEGMENT = /[A-Za-z0-9]+/g;
const HASH = /^(?:[0-9a-f]{4,}|[0-9A-F]{4,})$/;
const HEX = /^(?:[0-9a-f]+|[0-9A-F]+)$/;
const PLAIN = /^(?:[A-Z]?[a-z]{2,}[0-9]?|[A-Z]{3,})$/;
const SWITCH = /(?<=[A-Za-z])[0-9]|(?<=[0-9])[A-Za-z]/g;
const RUN = /[a-z]{4,}|[A-Z]{4,}|[0-9]{8,}/g;
const ODD = /[0-9!@#$%^&*]/;
const ORDINARY = new RegExp(
  raw`^(?:v?\d[\d.,:-]*[a-z%]{0,5}|(?:sha|md|utf|base|crc|rs|hs|es|x|ed|aes)-?\d+\w{0,8}` +
    raw`|argon2\w{0,2}|pbkdf2\w{0,16}|o?auth2|\w{0,16}2fa|(?:user|level|policy|step|host|node|test\w{0,64}?)-?\d+` +
    raw`|test\w{1,128}|[a-z]{2,32}(?:[-_][a-z0-9]{1,32}){1,8}|[\w.+-]{1,64}@[\w-]{1,63}\.[\w.-]{1,63}` +
    raw`|[\w-]{1,64}\.[a-z]{1,5})$`,
  'i'
);
const countOf = (pattern, text) => (text.match(pattern) || []).length;
const longestOf = (parts) => parts.reduce((longest, part) => (part.length > longest.length ? part : longest), '');
const hasOneCase = (word) => word.toLowerCase() === word || word.toUpperCase() === word;
const hasWords = (word, share) => (word.match(RUN) || []).join('').length > share * word.length;

/** Whether a word of at least RANDOM_LENGTH was drawn by lot, and is no text in base64 either. */
function isRandom(word) {
  const parts = (word.match(SEGMENT) || []).filter((part) => !HASH.test(part));
  const drawn = parts.some((part) => PLAIN.test(part)) ? longestOf(parts) : parts.join('');
  if (drawn.length < 20) return false;
  const switches = countOf(SWITCH, drawn);
  if (hasOneCase(drawn)) return drawn.length >= RANDOM_LENGTH && switches >= drawn.length / 4;
  const isFew = switches < Math.max(3, drawn.length / 9);
  return switches > 0 && !hasWords(drawn, isFew ? 0.2 : 0.5) && !isReadable(word);
}

function isReadable(word) {
  const text = word.replace(/=+$/, '');
  const plain = Buffer.from(text.slice(0, text.length - (text.length % 4)), 'base64');
  return /^[\t\n\r -~]*$/.test(plain.toString('latin1'));
}

/** Whether a word that a sentence calls a token is one, and not the next word of the sentence. */
function looksLikeToken(word) {
  const segments = (/\s/.test(word.trim()) ? null : word.match(SEGMENT)) || [];
  const core = segments.join('');
  if (/^(?:[0-9]+|[A-Za-z]+)$/.test(core)) return false;
  if (HEX.test(core)) return core.length >= 16;
  const longest = longestOf(segments);
  if (longest.length < 10) return false;
  const switches = countOf(SWITCH, longest);
  return hasOneCase(longest)
    ? switches >= Math.max(3, longest.length / 6)
    : switches >= (longest.length >= 16 ? 2 : 3) && !hasWords(longest, 0.6);
}

/** Whether a word that a sentence calls a password is one, and not the next word of the sentence. */
function looksLikePassword(word) {
  const bare = word.replace(/^[.,:;!?)]+|[.,:;!?)]+$/g, '');
  if (bare.length < 6 || /\/|::|^[$%]|\s/.test(bare)) return false;
  return ODD.test(bare) && !/^\d+$/.test(bare) && !ORDINARY.test(bare);
}

const PUBLIC_BEFORE = new RegExp(
  raw`(?:sha-?\d{1,3}|md5|h1|id|hash|digest|checksum|etag|fingerprint|integrity|commit|version|cursor|kid` +
    raw`|trace|span)\\{0,4}["']?\s{0,2}[:=-]?\s{0,2}\\{0,4}["']?$`,
  'i'
);
const PUBLIC = /^(?:AAAA|_Z|MII|sha(?:256|384|512)-)/; // keys of SSH, mangled names, certificates, hashes
const PATH = /(?<![\w+-])[a-z]{3,}(?![\w+-])/;

function maskRandom(word, at, text) {
  if (PUBLIC.test(word) || PUBLIC_BEFORE.test(text.slice(Math.max(at - 24, 0), at))) return word;
  if (!word.includes('/') || !PATH.test(word)) return isRandom(word) ? MASK : word;
  const mask = (part) => (part.length >= RANDOM_LENGTH && isRandom(part) ? MASK : part);
  return word.split('/').map(mask).join('/');
}

const RANDOM = /[A-Za-z0-9_](?<![\w+-].)[A-Za-z0-9_+/-]{29,}={0,2}/g;
const UNIT = new RegExp(
  raw`\s{1,4}(?:char|letter|digit|byte|kb|mb|kib|mib|page|item|time|row|user|second|minute|hour|day|week` +
    raw`|month|year|of\b|m?s\b|h\b|or more|and more)`,
  'iy'
);

/** Whether what was found, with its place and the text, is followed by a unit. */
function isAmount(found) {
  const [at, text] = found.slice(-3);
  return matchAt(UNIT, text, at + found[0].length) !== null;
}

/** Mask what a sentence says that a secret is. */
function maskTold(...found) {
  const { lead, token, value } = groupsOf(found);
  const bare = value.replace(/[.,:;!?]+$/, '');
  return (token ? looksLikeToken(bare) : ODD.test(bare) && !isAmount(found)) ? lead + MASK : found[0];
}

/** Mask what stands at once behind the word for it, and is not the next word of the sentence. */
function maskNamed(...found) {
  const [at, text, { lead, token, value }] = found.slice(-3);
  if (/unexpected $/i.test(text.slice(Math.max(at - 11, 0), at))) return found[0];
  return (token ? looksLikeToken : looksLikePassword)(value) ? lead + MASK : found[0];
}

const maskPin = (...found) => (isAmount(found) ? found[0] : groupsOf(found).lead + MASK);

const TOKEN_LENGTH = 15;
const TOKENS = [
  [/eyj/, raw`(?<![\w.-])eyJ[\w-]{8,}\.[\w-]{4,}(?:\.[\w-]*){0,3}`],
  ...[
    [/gh[opsru]_/, raw`gh[opsru]_[A-Za-z0-9]{16,}`],
    [/github_pat_/, raw`github_pat_\w{16,}`],
    [/gl[a-z]+-/, raw`gl(?:pat|ptt|rt|dt|ft|cbt|soat|agent)-[\w-]{16,}`],
    [/sk-/, raw`sk-(?=[A-Za-z_-]{0,64}[0-9])[\w-]{16,}`],
    [/_live_|_test_/, raw`[srp]k_(?:live|test)_\w{10,}`],
    [/whsec_/, raw`whsec_\w{16,}`],
    [/xox|xapp-/, raw`(?:xox[a-z]-|xapp-)[\w-]{10,}`],
    [/akia|asia|abia|acca/, raw`(?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16}(?![A-Za-z0-9])`],
    [/aiza/, raw`AIza[\w-]{30,}`],
    [/ya29\./, raw`ya29\.[\w.-]{16,}`],
    [/gocspx-/, raw`GOCSPX-[\w-]{16,}`],
    [/npm_/, raw`npm_[A-Za-z0-9]{30,}`],
    [/pypi-/, raw`pypi-[\w-]{16,}`],
    [/hf_/, raw`hf_[A-Za-z0-9]{16,}`],
    [/sg\./, raw`SG\.[\w-]{16,}\.[\w-]{16,}`],
    [/sk/, raw`SK[0-9a-f]{32}(?![A-Za-z0-9])`],
    [/do/, raw`do[opr]_v1_[0-9a-f]{16,}`],
    [/hv[sbr]\./, raw`hv[sbr]\.[\w-]{16,}`],
    [/dapi/, raw`dapi[0-9a-f]{32}`],
    [/shp/, raw`shp(?:at|ca|pa|ss)_[0-9a-fA-F]{16,}`],
    [/sq0/, raw`sq0[a-z]{3}-[\w-]{16,}`],
    [/key-/, raw`key-[0-9a-f]{32}(?![A-Za-z0-9])`],
    [/nrak-/, raw`NRAK-[A-Z0-9]{16,}`],
    [/lin_api_/, raw`lin_api_\w{16,}`],
    [/dp\./, raw`dp\.[a-z]{2,5}\.\w{16,}`],
    [/atatt3/, raw`ATATT3[\w=-]{16,}`],
    [/age-secret-key-/, raw`AGE-SECRET-KEY-1[0-9A-Z]{16,}`],
    [/gl(?:sa|c)_/, raw`gl(?:sa|c)_\w{16,}`],
    [/dckr_/, raw`dckr_[po]at_[\w-]{16,}`],
    [/pmak-/, raw`PMAK-[0-9a-f-]{16,}`],
    [/gsk_/, raw`gsk_[A-Za-z0-9]{20,}`],
    [/sntry/, raw`sntry[su]_[\w=+/-]{16,}`],
    [/xai-|pplx-/, raw`(?:xai|pplx)-[A-Za-z0-9]{20,}`],
    [/sbp_|sb_secret_/, raw`sb(?:p_[0-9a-f]{16,}|_secret_[\w-]{16,})`],
    [/r8_|ntn_|nfp_/, raw`(?:r8|ntn|nfp)_[A-Za-z0-9]{20,}`],
    [/figd_/, raw`figd_[\w-]{16,}`],
    [/tskey-/, raw`tskey-[a-z]{2,12}-[\w-]{10,}`],
    [/pul-/, raw`pul-[0-9a-f]{32,}`],
    [/eaa/, raw`EAA[A-Za-z0-9]{40,}`],
    [/:aa/, raw`[0-9]{8,10}:AA[\w-]{32,}`],
  ].map(([hint, source]) => [hint, raw`(?<![A-Za-z0-9_-])(?:${source})`]),
  [/\$/, raw`\$(?:2[abxy]?|argon2\w{1,2}|[156y]|scrypt)\$[\w./$=,+*-]{20,}`],
].map(([hint, source]) => [hint, new RegExp(source, 'g'), MASK]); // in words of at least TOKEN_LENGTH characters

const ADDRESSES = [
  [
    /-----begin/,
    /-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----.*?(?:-----END [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----|$)/gs,
    MASK,
  ],
  [
    /:\/\//,
    new RegExp(
      raw`(?<![\w+.-])((?:rediss?|valkeys?|(?:postgres(?:ql)?|mysql|mariadb)(?:\+\w{1,16})?` +
        raw`|amqps?|mongodb(?:\+srv)?|smtps?|ldaps?|s?ftp|ssh|clickhouse|nats|mqtts?|kafka|oracle(?:\+\w{1,16})?` +
        raw`|mssql(?:\+\w{1,16})?)://[^\s"'<>:@/\\]{0,128}):[^\s"'<>]{1,512}@`,
      'gi'
    ),
    `$1:${MASK}@`,
  ],
  [/:\/\//, /:\/\/([^\s/?#:@"'<>]{0,256}):[^\s/?#"'<>]{1,512}@/g, `://$1:${MASK}@`],
  [
    /@/,
    /((?<![\w:/.])(?:\/\/)?[\w.-]{1,64}):[^\s/?#:@"'<>]{1,256}@(?=(?:tcp|unix)\(|[\w.-]{1,253}[:/])/g,
    `$1:${MASK}@`,
  ],
  [/:\/\//, /:\/\/[^\s/?#:@"'<>]{16,256}@/g, `://${MASK}@`],
  [
    /[?&;]/,
    /([?&;](?:sig|signature|x-amz-signature|x-goog-signature|code|key|api_?key)=)[^\s&;#"'<>]{6,}/gi,
    `$1${MASK}`,
  ],
  [
    /hooks\.|webhooks\/|\.webhook/,
    /(hooks\.slack\.com\/[a-z]{1,20}\/|discord(?:app)?\.com\/api\/webhooks\/|\.webhook\.office\.com\/\w{1,20}\/)[\w@/-]{8,}/gi,
    `$1${MASK}`,
  ],
];

const PHRASES = [
  [/bearer/, /(?<!\w)(bearer\s{1,4})(?=[A-Za-z._~+/-]{0,128}[0-9])[\w.~+/=-]{8,}/gi, `$1${MASK}`],
  [
    /basic/,
    new RegExp(
      raw`(?<!\w)(${caseless('basic')}\s{1,4})(?=[A-Za-z+/]{0,128}[0-9=]|[A-Za-z]{0,128}[a-z][A-Z])[\w+/=-]{8,}`,
      'g'
    ),
    `$1${MASK}`,
  ],
  [
    /-u|user/,
    /(?<![\w-])((?:-u|-U|--user|--proxy-user)[ =]{0,2}["']?[^\s:"'-][^\s:"']{0,127}):(?!\d{1,6}\b)[^\s"']{1,512}/g,
    `$1:${MASK}`,
  ],
  [
    /identified|password|passwd/,
    /(\b(?:identified\s{1,4}(?:with\s{1,4}\w{1,64}\s{1,4})?(?:by|as)|password|passwd)(?:\s{1,4}|\s{0,4}\(\s{0,4}))'(?:[^'\r\n]|''){1,512}'?/gi,
    `$1'${MASK}'`,
  ],
  [
    /auth|requirepass/,
    new RegExp(
      raw`((?:^|["'\`>]|\b(?:${caseless(raw`commands?|redis-cli|args|hello \d`)}):?)[ \t]{0,4}` +
        raw`(?:AUTH|${caseless('config set (?:requirepass|masterauth)')})[ \t]{1,4})` +
        raw`(?!\*\*\*)[^\s"'\`]{1,512}(?:[ \t]{1,4}[^\s"'\`]{1,512})?`,
      'g'
    ),
    `$1${MASK}`,
  ],
  [/auth/, /(b?["']AUTH["'],\s{0,4})b?["'][^"'\n]{0,512}["'](?:,\s{0,4}b?["'][^"'\n]{0,512}["'])?/g, `$1'${MASK}'`],
  [
    /passw|passp|passc|pwd|kennwort|secret|token|key|jwt|cookie|credential|session/,
    new RegExp(
      raw`(?<lead>(?<!\w)(?:(?<token>token|jwt|cookie|credentials?|access[ _-]?key|session[ _-](?:id|key))` +
        raw`|passw(?:or)?d|passphrase|passwort|passcode|kennwort|pwd|secret|api[ _-]?key)` +
        raw`(?:\s{1,4}for\s{1,4}[^\s:]{1,64})?` +
        raw`(?:\s{1,4}(?:(?:(?:is|was)\s{1,4})?(?:set|changed|reset|updated)\s{1,4}to|is|was|ist)(?:\s{1,4}now)?:?|:)` +
        raw`\s{1,4}["'\`]?)(?!\*\*\*)(?<value>[^\s"'\`]{4,512})`,
      'gi'
    ),
    maskTold,
  ],
  [
    /passw|passp|pwd|kennwort|secret|token|key|jwt|cookie|credential|session/,
    new RegExp(
      raw`(?<lead>(?<!\w)(?:(?<token>token|jwt|cookie|credentials?|session(?:[ _-](?:id|key))?` +
        raw`|(?:api|access|secret|auth|private|signing|encryption|license)[ _-]?key|secret)` +
        raw`|passw(?:or)?d|passphrase|passwort|kennwort|pwd)\s{1,4}["'\`]?)` +
        raw`(?<value>[A-Za-z0-9!@#$^&+~][^\s"'\`<>(){}[\],;|\\=:]{5,512})`,
      'gi'
    ),
    maskNamed,
  ],
  [
    /pin|otp|verification|one-time|2fa|mfa|login/,
    new RegExp(
      raw`(?<lead>(?<!\w)(?:(?:pin|otp|totp)(?:[ ]code)?|(?:verification|one-time|login|2fa|mfa)[ ](?:code|password|pin))` +
        raw`(?:\s{1,4}(?:is|was))?:?\s{1,4}["'\`]?)(?<value>[0-9]{4,8})(?![\w-]|[.:]\w)`,
      'gi'
    ),
    maskPin,
  ],
  [
    /htpasswd|rabbitmqctl/,
    new RegExp(
      raw`((?:htpasswd[ \t]{1,4}-\w{0,8}b\w{0,8}[ \t]{1,4}(?:[^\s"']{1,256}[ \t]{1,4})?` +
        raw`|rabbitmqctl[ \t]{1,4}(?:add_user|change_password|authenticate_user)[ \t]{1,4})` +
        raw`[^\s"']{1,128}[ \t]{1,4}["']?)[^\s"']{1,512}`,
      'g'
    ),
    `$1${MASK}`,
  ],
  [/vault/, /(vault[ \t]{1,4}login[ \t]{1,4}["']?)(?![\s-])[^\s"'=]{8,512}(?!=)/g, `$1${MASK}`],
  [
    /-u|sqlplus/,
    new RegExp(
      raw`(-(?<![\w-]-)U[ =]{0,2}["']?[^\s%:"'-][^\s%:"']{0,63}%` +
        raw`|sqlplus[ \t]{1,4}(?:-\w{1,8}[ \t]{1,4}){0,4}\w{1,64}/` +
        raw`|lftp[ \t]{1,4}-u[ \t]{1,4}["']?[^\s,"']{1,64},)[^\s"'@]{1,512}`,
      'g'
    ),
    `$1${MASK}`,
  ],
  [
    /key|token/,
    /(\b(?:api|access|secret|private|signing|encryption|auth|account)[ ](?:key|token)\s{0,64}[:=]\s{0,64}["']?)(?!\*\*\*)[^\s"',;]{4,512}/gi,
    `$1${MASK}`,
  ],
];

const NUMBERS = [
  [/\d{4}/, /[2-6]\d\d\d[ -]?\d\d\d\d(?:[ -]?\d){4,11}(?![\w-])/g, maskCard],
  [/\d\d/, /[A-Z](?<![A-Za-z0-9].)[A-Z]\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?(?![A-Za-z0-9])/g, maskIban],
];
const PERSONAL = [
  [/@/, /(?<![\w.+-])[\w.+-]{1,64}@(?:[A-Za-z0-9-]{1,63}\.){1,8}[A-Za-z]{2,63}(?![\w-])/g, `${MASK}@${MASK}`],
];

const BLANKS = raw`(?:\s|\\{1,16}[nrt]){0,64}`; // people align values, and JSON escapes tabs and the ends of lines
const ASSIGNMENT = new RegExp(
  raw`(?<key>[A-Za-z_](?<!\w.)(?=(?<more>[\w.-]{0,127}))\k<more>)(?![\w.-])` +
    raw`(?:(?<quoted>\\{0,16}["'\`])?[\])]?(?<index>(?:\[[^[\]\s]{1,64}\]){1,4})?` +
    raw`(?<plain>${BLANKS}(?:=>|:=|->|[!=]={1,2}(?=\s{0,4}[bBrRuU]?\\{0,16}["'\`])|[:=|\u2192\u2502]|\\{1,16}u2(?:192|502))${BLANKS})` +
    raw`|(?<paired>\\{0,16}["'],\s{0,64})(?=\\{0,16}[bBrRuU]?["'])` +
    raw`|["\`\]]?\s{1,64}(?:${caseless('like|in|by')}|<>|!=)\s{0,64}\(?\s{0,64}(?='))`,
  'g'
);
const OPTION = new RegExp(
  raw`-(?<!\w.)(?<key>[A-Za-z_](?=(?<more>[\w.-]{0,127}))\k<more>)` +
    raw`(?:[ \t]{1,64}(?![ \t])|\\{0,16}["'],\s{0,64}(?=\\{0,16}["']))(?!-)(?:\\{0,16}["'])?` +
    raw`(?<value>(?:[^\s"'\\]|\\(?!["'\\])){1,2000})`,
  'g'
);
const ELEMENT = /<(?<key>[A-Za-z_][\w:.-]{0,63})(?<more>\s[^<>]{0,400})?>(?<value>\s*<!\[CDATA\[|[^<]*)/g;
const ATTRIBUTE = /\b(?:name|key|id)\s{0,4}=\s{0,4}["'](?<key>[\w.-]{1,128})/;
const UNCLOSED_LIMIT = 16;
const TUPLE = /\((?<columns>[^()=]{1,2000})\)\s{0,64}=\s{0,64}(?=\()/g;
const DUPLICATE = /([Dd]uplicate entry ')(?:[^'\\\n]|\\[^\n])*(' for key '(?<key>[^'\n]{1,128})')/g;
const BOUND = new RegExp(
  raw`(?:(?<!\w)(?:${caseless('parameters|params|binds|bindings|bind values')}|[Aa]rgs)\b` +
    raw`|[Dd]uplicate key value is\b|(?<row>[Ff]ailing row contains))\\{0,16}["']?\]?\s{0,16}[:=]?\s{0,16}(?=[[({$])`,
  'g'
);
const STATEMENT = /select|update|insert|delete|where|constraint/;
const REJECTED =
  /(?:^|\n|\\n)(?<key>[A-Za-z_](?=(?<more>[\w.-]{0,127}))\k<more>)(?:\r?\n|\\{1,16}n)[ \t]{1,16}(?:(?!input_value=)[^\n\\]){0,1000}input_value=/g;
const INPUT = /(?:(?!, input_type=)[^\n])*/y;
const COMMANDS = /mysql|mariadb|sshpass|redis-cli|login|mongo|sqlcmd|bcp |ldap|plink|pscp|cqlsh|mosquitto|zip|7z|psql|pg_|ipmitool|rar |openssl/;
const COMMAND = new RegExp(
  raw`(?<end>[\n|])|(?<![\w.-])(?:(?<tool>docker|podman|helm|az|oc|skopeo|buildah)` +
    raw`|(?<command>login|mysql\w{0,10}|mariadb\w{0,10}|sshpass|redis-cli|psql|pg_\w{4,12}|ipmitool` +
    raw`|(?:un)?rar|openssl|mongo\w{0,10}|sqlcmd|bcp|ldap\w{1,10}` +
    raw`|plink|pscp|cqlsh|mosquitto_\w{3}|zip|unzip|7z))(?![\w.])|(?<=[\s"'])-(?<option>pw(?=[\s"'\\])|hp|[pPawWk])` +
    raw`(?<apart>[ \t]{1,64}(?![ \t-])|\\{0,16}["'],\s{0,64}[bu]?(?=\\{0,16}["'](?!-)))?(?:\\{0,16}(?<quote>["']))?(?!\*\*\*)`,
  'g'
);
const PASSWORD_OPTIONS = { mysql: 'p', mariadb: 'p', sshpass: 'p', 'redis-cli': 'a', mongo: 'p', sqlcmd: 'P', bcp: 'P' };
Object.assign(PASSWORD_OPTIONS, { ldap: 'w', plink: 'pw', pscp: 'pw', cqlsh: 'p', mosquitto: 'P', zip: 'P', unzip: 'P' });
Object.assign(PASSWORD_OPTIONS, { '7z': 'p', login: 'p', psql: 'W', pg_: 'W', ipmitool: 'P', rar: 'p', unrar: 'p' });
Object.assign(PASSWORD_OPTIONS, { openssl: 'k' });
const OTHER_OPTIONS = { rar: 'hp' };
const DOUBTFUL = words('psql pg_ openssl'); // a password is known by what it looks like
const GLUED = words('mysql mariadb 7z rar unrar'); // their password follows the option at once
const QUOTED = { '"': /(?:[^"\\\n]|\\(?!["\\]))+/y, "'": /(?:[^'\\\n]|\\(?!['\\]))+/y };
const ARGUMENT = /(?:[^\s"'\\]|\\(?!["'\\])){1,512}/y;
const ESCAPED =
  /\\{1,16}(?:(?:u00|x)(?<code>[2-7][0-9a-fA-F])|(?<letter>[nrt"']))|&(?:#(?<number>3[49]|6[0-2]|58)|(?<name>quot|apos|lt|gt));/g;
const LETTERS = { n: '\n', r: '\r', t: '\t' };
const ENTITIES = { quot: '"', apos: "'", lt: '<', gt: '>' };
const BLOCKS = words('- | > |- >- |+ >+');
const ESCAPED_BLOCK = /^(?:-|[|>][+-]?)(?:\\{1,16}n|$)/;
const APART = /[{}<>]|\n\s{0,64}-/;
const NAMED = /\\{0,16}["'`]?(?<name>[\w.-]{1,128})/y;
const NEAR = 400; // characters between a name and its value, where they stand apart
const ENCODED_LIMIT = 64; // encoded words of a text that are looked into; those beyond are masked
const INSERT =
  /\binsert\s{1,64}(?:ignore\s{1,64})?into\s{1,64}[\w."`[\]]{1,128}\s{0,64}\((?<columns>[^()]{1,2000})\)\s{0,64}values\s{0,64}(?=\()/gi;
const SET =
  /(?<!\w)(?<set>(?:P?SETEX|SETNX|GETSET|H?M?SET)[ \t]{1,64}(?<key>[^\s=]{1,256})[ \t]{1,64})(?![=\s*])[^\r\n"'`]{1,2000}/g;
const LITERAL = /'(?:[^'\r\n]|'')*'?|\$\$.*?(?:\$\$|$)/gs;
const HEADER_VALUE = /(?:="[^"\r\n]*"|[^\r\n"'\\])+/y;
const QUOTED_VALUE =
  /([bBrRuU]{0,2}")(?:[^"\\\r\n]|\\[^\n])*"?|([bBrRuU]{0,2}')(?:[^'\\\r\n]|\\[^\n]|''(?=\w))*'?|(`)[^`\r\n]*`?/y;
const ESCAPED_QUOTE = /\\{1,16}["']/y;
const BARE_VALUE = /(?:[^\s,;&"'<>(){}[\]\\]|[,;&](?![\s"'&;,]|[\w.-]{1,64}[=:]|$)|["'<>\])}\\](?=\w)(?!(?<=\\)n[-+|\u2500-\u257f]{2}))+/y;
const RULE_VALUE = /^(?:[-+|:─═┼┤├╪╡╞│╫╢╟┴┬]|\\{1,16}[nr]){3,}$/; // the line below the head of a table is no value
const BRACKET = /"(?:[^"\\\r\n]|\\[^\n])*"|'(?:[^'\\\r\n]|\\[^\n])*'|[[\](){}]/g;
const PLAIN_VALUES = words('none null true false undefined nil');
const NO_SECRETS = words('success failed failure enabled disabled required missing invalid expired closed');
const BASE64 = /(?<![A-Za-z0-9+/_-])[A-Za-z0-9+/_-]{16,}={0,2}(?![A-Za-z0-9+/=_-])/g;

/** Return *text* with what looks like a secret replaced by ***, and with addresses of people masked. Twice is once. */
function redact(text) {
  return redacted(text, true);
}

/** Redact what is written, then what it says once its escapes are read, those of JSON and of HTML. */
function redacted(text, isOuter) {
  const clean = redactedPlain(text, isOuter);
  if (!isOuter || !/[\\&]/.test(clean)) return clean;
  const plain = clean.replace(ESCAPED, (...found) => {
    const { code, letter, number, name } = groupsOf(found);
    if (code) return code.toLowerCase() === '5c' ? found[0] : String.fromCharCode(Number.parseInt(code, 16));
    if (letter) return LETTERS[letter] || letter;
    return number ? String.fromCharCode(Number(number)) : ENTITIES[name];
  });
  if (plain === clean) return clean;
  const more = redactedPlain(plain, true);
  return more === plain ? clean : more;
}

function redactedPlain(text, isOuter) {
  const lowered = text.toLowerCase();
  const long = lowered
    .split(/\s+/)
    .filter((word) => word.length >= TOKEN_LENGTH)
    .join(' ');
  text = applied(ADDRESSES, text, lowered);
  text = applied(TOKENS, text, long);
  if (long.split(' ').some((word) => word.length >= RANDOM_LENGTH)) text = text.replace(RANDOM, maskRandom);
  if (KEY_HINTS.test(lowered) || SHORT_HINT.test(text)) text = redactKeyed(applied(PHRASES, text, lowered), lowered);
  if (lowered.includes('failing row contains')) text = redactBound(text, lowered);
  if (isOuter && (long || text.includes('%'))) text = redactEncoded(text);
  text = applied(NUMBERS, text, lowered);
  return isOuter ? applied(PERSONAL, text, lowered) : text;
}

function applied(shapes, text, lowered) {
  for (const [hint, pattern, replacement] of shapes) if (hint.test(lowered)) text = text.replace(pattern, replacement);
  return text;
}

const groupsOf = (found) => found[found.length - 1];
const isPlain = (value) => PLAIN_VALUES.has(value.toLowerCase());
const withoutValue = (found, value) => found.slice(0, found.length - value.length) + MASK;

function redactKeyed(text, lowered) {
  const mask = (...found) => {
    const { key, value } = groupsOf(found);
    const isSecret = isSecretKey(key) || (isPass(key) && looksLikePassword(value));
    return isSecret && value.trim() && !isPlain(value) ? withoutValue(found[0], value) : found[0];
  };
  if (text.includes('<')) text = redactElements(text);
  if (/--|──|══/.test(text)) text = redactTables(text);
  if (lowered.includes('insert')) text = redactInserts(text);
  if (text.includes(')')) text = redactTuples(text);
  if (/param|bind|args|duplicate/.test(lowered)) text = redactBound(text, lowered);
  if (text.includes('SET'))
    text = text.replace(SET, (...found) => (isSecretKey(groupsOf(found).key) ? groupsOf(found).set + MASK : found[0]));
  text = text.replace(DUPLICATE, (...found) =>
    isSecretKey(groupsOf(found).key) ? found[1] + MASK + found[2] : found[0]
  );
  if (text.includes('input_value=')) text = redactRejected(text);
  if (COMMANDS.test(lowered)) text = redactCommands(text);
  return redactAssigned(text.replace(OPTION, mask));
}

/** Mask the literals of a statement that fills a secret column: which is which is not worth a parser. */
function redactInserts(text) {
  let kept = '';
  let done = 0;
  for (const found of text.matchAll(INSERT)) {
    if (
      found.index < done ||
      !found.groups.columns.split(',').some((column) => isSecretKey(column.replace(/[\s"`[\]]/g, '')))
    )
      continue;
    const start = found.index + found[0].length;
    const stop = text.indexOf(';\n', start);
    const end = stop < 0 ? text.length : stop;
    kept += text.slice(done, start) + text.slice(start, end).replace(LITERAL, `'${MASK}'`);
    done = end;
  }
  return kept + text.slice(done);
}

/** *text* with [from, to, instead] done, in their order; one inside another is left out. */
function replaced(text, edits) {
  let kept = '';
  let done = 0;
  for (const [start, end, instead] of edits.sort((one, other) => one[0] - other[0])) {
    if (start < done) continue;
    kept += text.slice(done, start) + instead;
    done = end;
  }
  return kept + text.slice(done);
}

/** All that *pattern* finds; *look* gets each, and where it ends, and returns an edit to go on behind, or nothing. */
function edited(text, pattern, look) {
  const edits = [];
  pattern.lastIndex = 0;
  for (let found = pattern.exec(text); found; found = pattern.exec(text)) {
    const edit = look(found, pattern.lastIndex);
    if (!edit) continue;
    edits.push(edit);
    pattern.lastIndex = edit[1];
  }
  return edits.length ? replaced(text, edits) : text;
}

const hasSecretColumn = (columns) =>
  columns.split(',').some((column) => isSecretKey(column.replace(/[\s"`[\]]/g, '')));

function redactElements(text) {
  const unclosed = new Set();
  return edited(text, ELEMENT, (found, end) => {
    const { key, more, value } = found.groups;
    const attribute = more && ATTRIBUTE.exec(more);
    if (!isSecretKey(key) && !(attribute && isSecretKey(attribute.groups.key))) return null;
    const stop = endOfElement(text, key, value, end, unclosed);
    const start = end - value.length;
    return stop < 0 || ['', MASK].includes(text.slice(start, stop).trim()) ? null : [start, stop, MASK];
  });
}

function endOfElement(text, key, value, end, unclosed) {
  if (value.endsWith('CDATA[')) {
    const stop = text.indexOf(']]>', end);
    return stop < 0 ? text.length : stop + 3;
  }
  if (text.startsWith('</', end)) return end;
  if (!text.startsWith('<', end) || value.trim()) return -1;
  if (unclosed.size > UNCLOSED_LIMIT) return text.length;
  const stop = unclosed.has(key) ? -1 : text.indexOf(`</${key}`, end);
  if (stop < 0) unclosed.add(key);
  return stop;
}

const TABLE_RULE = /^[-+|:├╞╟─═┼╪╫┤╡╢ \t]{3,}\r?$/gm; // the line between the head of a table and its rows
const BORDER = /[|│┃║]/g;
const NO_VALUES = new Set(['', MASK, 'null', 'none', '[null]', '<null>']);
const isEmpty = (cell) => NO_VALUES.has(cell.trim().toLowerCase());
const isHead = (cell) =>
  cell.length <= 64 && cell.trim().split(/\s+/).length <= 2 && isSecretKey(cell.replace(/^[ \t`*"]+|[ \t`*"]+$/g, ''));

/** Mask the secret columns of tables: what psql, mysql and sqlcmd print, and tables of Markdown. */
function redactTables(text) {
  const edits = [];
  for (const rule of text.matchAll(TABLE_RULE)) {
    const start = Math.max(rule.index - 1, 0);
    const head = text.slice(start ? text.lastIndexOf('\n', start - 1) + 1 : 0, start).replace(/\r$/, '');
    const cells = head.split(BORDER);
    const end = rule.index + rule[0].length;
    if (cells.length > 1) {
      const secret = cells.map((cell, at) => (isHead(cell) ? at : -1)).filter((at) => at >= 0);
      if (secret.length) maskCells(text, end, secret, cells.length, edits);
      continue;
    }
    const spans = [...rule[0].matchAll(/[-─═:]{2,}/g)].map((dashes) => [dashes.index, dashes.index + dashes[0].length]);
    const isApart = spans.length > 1 || /^\s/.test(head); // one word with a line below it is a heading
    const columns = spans
      .map(([from, to], at) => [from, to, at + 1 < spans.length ? spans[at + 1][0] : undefined])
      .filter(([from, to]) => isApart && isHead(head.slice(from, to)))
      .map(([from, , next]) => [from, next]);
    if (columns.length) maskColumns(text, end, columns, edits);
  }
  return edits.length ? replaced(text, edits) : text;
}

/** Mask cells between borders; in a row of more cells than its head all behind the first secret one. */
function maskCells(text, start, secret, width, edits) {
  while (start < text.length) {
    const end = endOfLine(text, start + 1);
    const borders = [...text.slice(start + 1, end).matchAll(BORDER)].map((border) => start + 1 + border.index);
    if (!borders.length) return;
    const edges = [start, ...borders, end - (text[end - 1] === '\r' ? 1 : 0)];
    let spans = secret.filter((at) => at + 1 < edges.length).map((at) => [edges[at], edges[at + 1]]);
    if (edges.length - 1 > width) {
      const isClosed = !text.slice(edges[edges.length - 2] + 1, edges[edges.length - 1]).trim();
      spans = [[edges[secret[0]], edges[edges.length - (isClosed ? 2 : 1)]]];
    }
    for (const [one, other] of spans)
      if (!isEmpty(text.slice(one + 1, other))) edits.push([one + 1, other, ` ${MASK} `.padEnd(other - one - 1)]);
    start = end;
  }
}

/** Mask columns that have their places, up to a line that is blank or counts the rows. */
function maskColumns(text, start, columns, edits) {
  while (start < text.length) {
    const end = endOfLine(text, start + 1);
    const line = text.slice(start + 1, end).replace(/\r$/, '');
    if (!line.trim() || line.startsWith('(')) return;
    for (const [from, next] of columns) {
      const to = Math.min(next === undefined ? line.length : next, line.length);
      if (!isEmpty(line.slice(from, next))) edits.push([start + 1 + from, start + 1 + to, MASK.padEnd(to - from)]);
    }
    start = end;
  }
}

function redactTuples(text) {
  return edited(text, TUPLE, (found, end) =>
    hasSecretColumn(found.groups.columns) ? [end, endOfBracket(text, end), `(${MASK})`] : null
  );
}

/** Mask what was bound to a statement that names a secret column, all of it: its places have no names. */
function redactBound(text, lowered) {
  let first = -1;
  return edited(text, BOUND, (found, end) => {
    if (!found.groups.row) {
      if (first < 0) first = firstSecretName(text, lowered);
      if (first >= found.index) return null;
    }
    return [end, text[end] === '$' ? endOfLine(text, end) : endOfBracket(text, end), MASK];
  });
}

function firstSecretName(text, lowered) {
  if (STATEMENT.test(lowered))
    for (const found of text.matchAll(/[A-Za-z_][\w.]{1,127}/g)) if (isSecretKey(found[0])) return found.index;
  return text.length;
}

function endOfLine(text, start) {
  const end = text.indexOf('\n', start);
  return end < 0 ? text.length : end;
}

function redactRejected(text) {
  return edited(text, REJECTED, (found, end) =>
    isSecretKey(found.groups.key) ? [end, end + matchAt(INPUT, text, end)[0].length, MASK] : null
  );
}

/** Mask passwords that programs take by short options, which mean something else to other programs. */
function redactCommands(text) {
  let option = '';
  let command = '';
  let hasTool = false;
  return edited(text, COMMAND, (found, end) => {
    const told = found.groups;
    if (told.end) [option, hasTool] = ['', false];
    else if (told.tool) hasTool = true;
    else if (told.command) {
      if (told.command === 'login' && !hasTool) return null;
      command =
        told.command in PASSWORD_OPTIONS
          ? told.command
          : Object.keys(PASSWORD_OPTIONS).find((name) => told.command.startsWith(name));
      option = PASSWORD_OPTIONS[command];
    } else if (option && [option, OTHER_OPTIONS[command] || option].includes(told.option)) {
      if (told.apart && GLUED.has(command)) return null;
      const value = matchAt(told.quote ? QUOTED[told.quote] : ARGUMENT, text, end);
      if (!value || (DOUBTFUL.has(command) && !looksLikePassword(value[0]))) return null;
      return [end, end + value[0].length, MASK];
    }
    return null;
  });
}

/** Mask the values of secret keys, also where one pair has the name and another the value. */
function redactAssigned(text) {
  const edits = [];
  let named = -1; // where the name of a secret ends whose value may follow
  let held = -1; // where a value begins whose name may follow
  const areNear = (start, end) => end - start <= NEAR && !APART.test(text.slice(start, end));
  ASSIGNMENT.lastIndex = 0;
  for (let found = ASSIGNMENT.exec(text); found; found = ASSIGNMENT.exec(text)) {
    const start = ASSIGNMENT.lastIndex;
    let value = valueOf(text, found, start);
    const word = value ? '' : found.groups.key.toLowerCase();
    if (NAME_KEYS.has(word)) {
      const name = matchAt(NAMED, text, start);
      const isNamed = name && (isSecretKey(name.groups.name) || isWeakKey(name.groups.name));
      named = isNamed ? start + name[0].length : -1;
      if (isNamed && held >= 0 && found.index - held <= NEAR) {
        const before = text.slice(held, found.index);
        const one = valueAt(before, 0, 'value');
        if (one && !APART.test(before.slice(one[1]))) edits.push([held, held + one[1], one[0]]);
      }
      held = -1;
    } else if (VALUE_KEYS.has(word)) {
      if (named >= 0 && areNear(named, found.index)) value = valueAt(text, start, word);
      held = start;
    }
    if (!value) continue;
    edits.push([start, value[1], value[0]]);
    ASSIGNMENT.lastIndex = value[1];
  }
  return edits.length ? replaced(text, edits) : text;
}

function valueOf(text, found, start) {
  const { key, quoted, plain, paired, index } = found.groups;
  if (paired && !isPair(text, found.index, start)) return null;
  if (isSecretKey(key) || isSecretOtherwise(text[found.index - 1], key, index)) return valueAt(text, start, key);
  if (!isWeakKey(key)) return null;
  const value = valueAt(text, start, key);
  if (!value) return null;
  const bare = text.slice(start, value[1]).replace(/^[\\"'`]+|[\\"'`]+$/g, '');
  if (quoted || plain === '=') return bare.length >= 6 && !NO_SECRETS.has(bare.toLowerCase()) ? value : null;
  const isSign = key !== 'PASS' && /:|^\s/.test(plain || ''); // PASS: is what tests say
  return isSign && (isPass(key) ? looksLikePassword : looksLikeToken)(bare) ? value : null;
}

const isPass = (key) => wordsOf(key).pop() === 'pass';

/** Whether a key is secret without its first letter, as in -Dpassword, or by what it is asked for. */
function isSecretOtherwise(before, key, index) {
  if ((before === '\\' || (before === '-' && key.startsWith('D'))) && isSecretKey(key.slice(1))) return true;
  return index !== undefined && index.split(']').some(isSecretKey);
}

/** Whether the key is the first of a list, and what follows it no key itself. */
function isPair(text, at, start) {
  const value = matchAt(QUOTED_VALUE, text, start);
  return (
    /[([]\s{0,4}[bu]?\\{0,16}["']$/.test(text.slice(Math.max(at - 24, 0), at)) &&
    (!value || text[start + value[0].length] !== ':')
  );
}

function matchAt(pattern, text, start) {
  pattern.lastIndex = start;
  return pattern.exec(text);
}

/** What stands for the value that begins at *start*, and where it ends; null if it stays. */
function valueAt(text, start, key) {
  const escaped = matchAt(ESCAPED_QUOTE, text, start);
  if (escaped) return escapedValue(text, escaped[0], start + escaped[0].length);
  if (text.startsWith('"""', start) || text.startsWith("'''", start)) {
    const end = text.indexOf(text.slice(start, start + 3), start + 3);
    return [MASK, end < 0 ? text.length : end + 3];
  }
  const quoted = matchAt(QUOTED_VALUE, text, start);
  if (quoted) return quotedValue(quoted, start);
  if ('[{('.includes(text[start] || ' ')) return [MASK, endOfBracket(text, start)];
  const isLine = wordsOf(key).some((word) => word === 'authorization' || word === 'cookie');
  const bare = matchAt(isLine ? HEADER_VALUE : BARE_VALUE, text, start);
  if (!bare || isPlain(bare[0]) || RULE_VALUE.test(bare[0])) return null;
  const end = start + bare[0].length;
  const isNested = bare[0].endsWith(':');
  if (BLOCKS.has(bare[0]) || (isNested && isFirst(text, start))) return [MASK, endOfBlock(text, start)];
  const escapesBefore = /\\n[ \t]{0,16}$/.test(text.slice(Math.max(start - 24, 0), start));
  if (ESCAPED_BLOCK.test(bare[0]) || (isNested && escapesBefore)) return [MASK, endOfLine(text, end)];
  const isCalled = '[{('.includes(text[end] || ' ') && !isLine && bare[0] !== MASK;
  return [MASK, isCalled ? endOfBracket(text, end) : end];
}

const DEEPEST = 80;

/** Whether what begins at *start* is the first of its line. */
function isFirst(text, start) {
  const before = text.slice(Math.max(start - DEEPEST, 0), start);
  const line = before.lastIndexOf('\n');
  return line >= 0 && !before.slice(line).trim();
}

/** Where what is indented as deep as the first line from *start* on, or deeper, ends. */
function endOfBlock(text, start) {
  const first = isFirst(text, start) ? start : endOfLine(text, start) + 1;
  const line = text.lastIndexOf('\n', first - 1) + 1;
  const indent = /^[ \t]*/.exec(text.slice(line, line + DEEPEST))[0].length;
  let end = endOfLine(text, first);
  while (end < text.length) {
    const isLess = /[^ \t\r]/.test(text.slice(end + 1, end + 1 + indent));
    if (isLess || (indent === 0 && text[end + 1] !== '-')) break;
    end = endOfLine(text, end + 1);
  }
  return end;
}

function quotedValue(found, start) {
  const opened = found[1] || found[2] || found[3];
  const quote = opened[opened.length - 1];
  const closed = found[0].length > opened.length && found[0].endsWith(quote) ? quote : '';
  return found[0].length === opened.length + closed.length ? null : [opened + MASK + closed, start + found[0].length];
}

/** Mask up to the same quote with as many backslashes before it, else to the end of the line. */
function escapedValue(text, opened, start) {
  let at = text.indexOf(opened, start);
  while (at >= 0 && text[at - 1] === '\\') at = text.indexOf(opened, at + 1);
  const line = text.indexOf('\n', start);
  if (at < 0 || (line >= 0 && line < at)) return [opened + MASK, line < 0 ? text.length : line];
  return at === start ? null : [opened + MASK + opened, at + opened.length];
}

function endOfBracket(text, start) {
  let depth = 0;
  BRACKET.lastIndex = start;
  for (let found = BRACKET.exec(text); found; found = BRACKET.exec(text)) {
    if ('[{('.includes(found[0])) depth++;
    else if (']})'.includes(found[0])) depth--;
    if (depth === 0) return BRACKET.lastIndex;
  }
  return text.length;
}

/** Mask what holds a secret once it is decoded. */
function redactEncoded(text) {
  let left = ENCODED_LIMIT;
  const hides = (plain) => --left < 0 || redacted(plain, false) !== plain;
  const unquoted = (word) =>
    word.replace(/%([0-9a-f]{2})/gi, (_, code) => String.fromCharCode(Number.parseInt(code, 16)));
  if (/%(?:25|3[AaDd]|2[27]|40)/.test(text)) {
    text = text.replace(/[^\s"'<>]+/g, (found) => {
      if (!found.includes('%')) return found;
      return hides(unquoted(unquoted(unquoted(unquoted(found))))) ? MASK : found;
    });
  }
  return text.replace(BASE64, (found) => {
    const plain = Buffer.from(found, 'base64').toString();
    return !plain.includes('\ufffd') && hides(plain) ? MASK : found;
  });
}

const hidden = { count: 0, why: '' }; // texts that we failed to redact

/** Any value as a redacted text of at most *limit* characters. A failure hides the text, it never shows it. */
function clean(value, limit = MESSAGE_LIMIT) {
  let text;
  try {
    text = String(value).slice(0, TEXT_TAKEN);
  } catch {
    return FAILED; // a stranger's object has no text
  }
  try {
    text = redact(text);
  } catch (error) {
    hidden.count++;
    hidden.why = error.name;
    return FAILED;
  }
  return text.length <= limit ? text : `${text.slice(0, limit - 1)}…`;
}

/** A JSON-like copy with secrets masked, by key and by their shape. */
function cleanValue(value, depth = 0) {
  if (value === null || value === undefined || typeof value === 'boolean') return value === undefined ? null : value;
  if (typeof value === 'number') return cleanNumber(value);
  if (typeof value !== 'object') return clean(typeof value === 'function' ? '[function]' : value, TEXT_LIMIT);
  if (depth >= DEPTH_LIMIT) return MASK;
  if (ArrayBuffer.isView(value))
    return clean(Buffer.from(value.buffer, value.byteOffset, Math.min(value.byteLength, TEXT_LIMIT)), TEXT_LIMIT);
  if (value instanceof Error) return clean(`${value.name}: ${value.message}`);
  if (Array.isArray(value))
    return cleanArguments(
      value
        .slice(0, WIDTH_LIMIT)
        .map((item, at) => (isSecretMember(value, at) ? MASK : cleanValue(item, depth + 1)))
    );
  const entries = Object.entries(value).slice(0, WIDTH_LIMIT);
  const isNamed = entries.some(
    ([key, name]) =>
      typeof name === 'string' && NAME_KEYS.has(key.toLowerCase()) && (isSecretKey(name) || isWeakKey(name))
  );
  const isValue = (key, item) =>
    isNamed && VALUE_KEYS.has(key.toLowerCase()) && item !== null && item !== undefined && item !== '';
  return Object.fromEntries(
    entries.map(([key, item]) => [clean(key), isValue(key, item) ? MASK : cleanItem(key, item, depth + 1)])
  );
}

/** A number, masked if it is one of a card. */
function cleanNumber(value) {
  if (!Number.isFinite(value)) return String(value);
  return value >= 1e11 && Number.isSafeInteger(value) && redact(String(value)) !== String(value) ? MASK : value;
}

/** Redact what is a secret on the command line that a list is: by what stands before it. */
function cleanArguments(items) {
  const several = '\ue000'; // an argument that is no single word: it is redacted by itself, or masked whole
  const parts = items.map((item) => (typeof item === 'string' && /^\S+$/.test(item) ? item : several));
  if (!parts.some((word) => word.startsWith('-'))) return items;
  const line = clean(parts.join(' '), TEXT_TAKEN);
  const seen = line.split(' ');
  if (line === parts.join(' ')) return items;
  if (seen.length !== parts.length) {
    const same = parts.findIndex((word, at) => word !== seen[at]);
    return items.map((item, at) => (at < same ? item : MASK));
  }
  return items.map((item, at) => (seen[at] === parts[at] ? item : parts[at] === several ? MASK : seen[at]));
}

function cleanItem(key, value, depth) {
  const says = !(value === null || value === undefined || value === '' || typeof value === 'boolean');
  return says && (isSecretKey(key) || (isWeakKey(key) && typeof value !== 'number')) ? MASK : cleanValue(value, depth);
}

/** Whether one of a list is the value of an option, of a pair, or of a Redis command. */
function isSecretMember(items, at) {
  if (typeof items[at] !== 'string' || !items[at] || at === 0) return false;
  const [before, last] = [items[at - 2], items[at - 1]].map((word) => (typeof word === 'string' ? word : ''));
  if (last.startsWith('-') && !items[at].startsWith('-')) return isSecretKey(last);
  if ([before, last].some((word) => word.toUpperCase() === 'AUTH') || /^(requirepass|masterauth)$/i.test(last))
    return true;
  if (/SET(EX|NX)?$/i.test(String(items[0])) && at > 1)
    return isSecretKey(String(items[1])) || (/^HSET$/i.test(items[0]) && isSecretKey(last));
  return items.length === 2 && isSecretKey(last);
}

// ------------------------------------------------------------------------------- errors as the wire wants them

const isObject = (value) => (typeof value === 'object' && value !== null) || typeof value === 'function';

/** Read a property of somebody else's object: getters and proxies may throw. */
function peek(object, key) {
  try {
    return object[key];
  } catch {
    return undefined;
  }
}

function typeOf(error) {
  if (!isObject(error)) return typeof error;
  const name = peek(error, 'name');
  const maker = peek(peek(error, 'constructor') || {}, 'name');
  const isPlain = typeof name !== 'string' || !name || name === 'Error';
  return clean(isPlain && typeof maker === 'string' && maker ? maker : name || 'Error', 200);
}

function messageOf(error) {
  if (!isObject(error)) return clean(typeof error === 'symbol' ? error.toString() : error);
  const message = peek(error, 'message');
  if (typeof message === 'string' && (message || types.isNativeError(error))) return clean(message);
  if (message !== undefined) return clean(message);
  try {
    return clean(JSON.stringify(cleanValue(error)), MESSAGE_LIMIT);
  } catch {
    return '[no message]'; // its getters or its toJSON throw
  }
}

const ROOT = process.cwd() + path.sep;
const FRAME =
  /^\s+at (?:(.*?) \()?(?:async )?((?:file:\/\/|node:|[A-Za-z]:[\\/]|\/|internal\/|evalmachine|\[)?[^()]*?)(?::(\d+))?(?::(\d+))?\)?$/;

/** The frames of a stack as V8 writes it, outermost first; our own are left out. */
function framesOf(stack) {
  if (typeof stack !== 'string') return [];
  const lines = stack
    .slice(0, 4 * TEXT_TAKEN)
    .split('\n')
    .filter((line) => /^\s+at /.test(line));
  const frames = lines.map(frameOf).filter((frame) => frame && frame.file !== __filename);
  const half = FRAMES_LIMIT / 2;
  const kept = frames.length > FRAMES_LIMIT ? [...frames.slice(0, half), ...frames.slice(-half)] : frames;
  return kept.reverse();
}

function frameOf(line) {
  const found = FRAME.exec(line);
  if (!found) return null;
  const file = found[2].startsWith('file://') ? decodeURI(found[2].slice(7)) : found[2];
  if (!file || file === '<anonymous>' || file === 'native') return null;
  const isNode = file.startsWith('node:') || file.startsWith('internal/');
  const installed = file.lastIndexOf(`${path.sep}node_modules${path.sep}`);
  let module = file.startsWith(ROOT) ? file.slice(ROOT.length) : file;
  if (installed >= 0) module = file.slice(installed + 14);
  return {
    module: clean(module.split(path.sep).join('/'), 200),
    function: clean(found[1] || '', 200),
    file: clean(file, 500),
    line: Number(found[3]) || 0,
    in_app: !isNode && installed < 0,
  };
}

/** The error, then what led to it: its causes, and the members of an AggregateError. */
function chainOf(error) {
  const chain = [];
  const seen = new Set();
  const wanted = [[error, 'raised']];
  while (wanted.length && chain.length < CHAIN_LIMIT) {
    const [one, relation] = wanted.shift();
    if (isObject(one) && seen.has(one)) continue;
    seen.add(one);
    chain.push({
      type: typeOf(one),
      message: messageOf(one),
      relation,
      frames: isObject(one) ? framesOf(peek(one, 'stack')) : [],
    });
    if (!isObject(one)) continue;
    const cause = peek(one, 'cause');
    if (cause !== undefined && cause !== null) wanted.push([cause, 'cause']);
    const members = peek(one, 'errors');
    if (Array.isArray(members)) wanted.push(...members.slice(0, CHAIN_LIMIT).map((member) => [member, 'member']));
  }
  return chain;
}

/** What classification uses of a system error. */
function factsOf(error) {
  const facts = {};
  const source = system(error) || system(firstMember(error)) || system(peek(Object(error), 'cause'));
  if (!source) return facts;
  if (Number.isInteger(source.errno) && Math.abs(source.errno) < 1000)
    facts.errno = Math.abs(source.errno); // above are libuv's own
  else if (os.constants.errno[source.code]) facts.errno = os.constants.errno[source.code];
  if (typeof source.path === 'string') facts.path = clean(source.path, 500);
  const host = source.address || source.hostname;
  if (typeof host === 'string' && host !== source.path) facts.peer = source.port ? `${host}:${source.port}` : host;
  return facts;
}

function system(error) {
  return isObject(error) && typeof peek(error, 'code') === 'string' && /^E[A-Z_]+$/.test(error.code) ? error : null;
}

function firstMember(error) {
  const members = isObject(error) ? peek(error, 'errors') : null;
  return Array.isArray(members) ? members[0] : null;
}

// -------------------------------------------------------------------------------------------- state of process

const CORES = os.cpus().length;

function systemState() {
  const state = { pid: process.pid, uptime: round(process.uptime()), node: process.version };
  const heap = v8.getHeapStatistics();
  Object.assign(state, {
    rss: process.memoryUsage.rss(),
    heap_used: heap.used_heap_size,
    heap_limit: heap.heap_size_limit,
    memory_total: os.totalmem(),
    memory_available: os.freemem(),
    load: round(os.loadavg()[0]),
    cores: CORES,
  });
  return state;
}

const round = (value, digits = 2) => Number(value.toFixed(digits));
const megabytes = (bytes) => `${Math.round(bytes / 1e6)} MB`;

/** The least of each window, and whether they rise for good: Mann-Kendall at 1 %, Theil-Sen for the slope. */
class Trend {
  constructor({ window, windows }) {
    this.window = window;
    this.windows = windows;
    this.minima = [];
    this.least = Infinity;
    this.began = null;
  }

  /** Take a value at a time in seconds; true when a window has ended with it. */
  add(value, at) {
    if (this.began === null) this.began = at;
    if (at - this.began < this.window) {
      this.least = Math.min(this.least, value);
      return false;
    }
    this.minima.push([this.began, Math.min(this.least, value)]);
    if (this.minima.length > this.windows) this.minima.shift();
    this.began = at;
    this.least = value;
    return true;
  }

  /** Units a second, 0 where it does not rise for good or not enough is known. */
  slope() {
    const points = this.minima;
    const n = points.length;
    if (n < this.windows) return 0;
    const slopes = [];
    let sign = 0;
    for (let i = 0; i < n; i++) {
      for (let j = i + 1; j < n; j++) {
        sign += Math.sign(points[j][1] - points[i][1]);
        slopes.push((points[j][1] - points[i][1]) / (points[j][0] - points[i][0]));
      }
    }
    const z = (sign - 1) / Math.sqrt((n * (n - 1) * (2 * n + 5)) / 18);
    slopes.sort((a, b) => a - b);
    return z > 2.576 ? Math.max(0, slopes[slopes.length >> 1]) : 0;
  }
}

function memoryLimit() {
  for (const file of ['/sys/fs/cgroup/memory.max', '/sys/fs/cgroup/memory/memory.limit_in_bytes']) {
    try {
      const limit = Number.parseInt(fs.readFileSync(file, 'utf8'), 10);
      if (limit > 0 && limit < os.totalmem()) return limit;
    } catch {
      // not there: no such limit
    }
  }
  return os.totalmem();
}

function handlesLimit() {
  const found = /^Max open files\s+(\d+)/m.exec(fs.readFileSync('/proc/self/limits', 'utf8'));
  return found ? Number(found[1]) : Infinity;
}

// ---------------------------------------------------------------------------------------------- the own thread

/**
 * Runs in a thread: posts what the port brings, one after the other, and says what became of it. After each answer
 * it moves the flag, for a main thread that waits. It stands alone: nothing of this file is in its scope.
 */
function sender() {
  const { workerData } = require('worker_threads');
  const { port, flag, url, token, timeout, agentName } = workerData;
  const fs = require('fs');
  const target = (path) => new URL(`${url}/api/monitoring/${path}`);
  const http = require(url.startsWith('https:') ? 'https' : 'http');
  const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
  const answered = new Int32Array(flag); // [moves with each answer, 1 once this thread is up]
  const headers = { 'content-type': 'application/json', 'user-agent': agentName };
  if (token) headers.authorization = `Bearer ${token}`;

  function post(body, path = 'errors', again = true) {
    return new Promise((resolve) => {
      const options = {
        method: 'POST',
        agent,
        timeout,
        headers: { ...headers, 'content-length': Buffer.byteLength(body) },
      };
      const request = http.request(target(path), options, (response) => {
        response.resume();
        response.on('error', () => resolve({ error: 'ECONNRESET' }));
        response.on('end', () =>
          resolve({ status: response.statusCode, retryAfter: Number(response.headers['retry-after']) || 0 })
        );
      });
      request.on('timeout', () => request.destroy(Object.assign(new Error('no answer'), { code: 'ETIMEDOUT' })));
      request.on('error', (error) => {
        // A kept connection that the other side has closed meanwhile says nothing about the other side.
        if (request.reusedSocket && again && error.code === 'ECONNRESET') resolve(post(body, path, false));
        else resolve({ error: error.code || error.message });
      });
      request.end(body);
    });
  }

  const isOver = (answer) =>
    answer.status < 300 ||
    (answer.status >= 400 && ![401, 403, 404, 408, 429].includes(answer.status) && answer.status < 500);

  async function leftovers(files) {
    const failed = [];
    for (const file of files) {
      let lines;
      try {
        const descriptor = fs.openSync(file, fs.constants.O_RDONLY | fs.constants.O_NOFOLLOW);
        lines = fs.readFileSync(descriptor, 'utf8').split('\n').filter(Boolean);
        fs.closeSync(descriptor);
      } catch (error) {
        if (error.code !== 'ENOENT') failed.push(error.message); // else another start was faster
        continue;
      }
      for (const line of lines) {
        if (!isOver(await post(line))) return { left: true, failed };
      }
      try {
        fs.rmSync(file, { force: true });
      } catch (error) {
        failed.push(error.message);
      }
    }
    return { left: false, failed };
  }

  Atomics.store(answered, 1, 1);
  Atomics.add(answered, 0, 1);
  Atomics.notify(answered, 0);
  let work = Promise.resolve();
  port.on('message', (wanted) => {
    work = work.then(async () => {
      const answer = wanted.files ? await leftovers(wanted.files) : await post(wanted.body, wanted.path);
      port.postMessage({ id: wanted.id, ...answer });
      Atomics.add(answered, 0, 1);
      Atomics.notify(answered, 0);
    });
  });
}

/** Posts bodies by a thread that starts with the first of them. */
class Sender {
  constructor(settings) {
    this.settings = settings;
    this.asked = new Map(); // id → callback
    this.ids = 0;
    this.worker = null;
  }

  start() {
    const { port1, port2 } = new threads.MessageChannel();
    const flag = new SharedArrayBuffer(8);
    const { url, token, timeout } = this.settings;
    const env = {};
    if (process.env.NODE_TLS_REJECT_UNAUTHORIZED)
      env.NODE_TLS_REJECT_UNAUTHORIZED = process.env.NODE_TLS_REJECT_UNAUTHORIZED;
    const worker = new threads.Worker(`(${sender})()`, {
      eval: true,
      workerData: { port: port2, flag, url, token, timeout: timeout * 1000, agentName: `soulfra-node/${VERSION}` },
      transferList: [port2],
      execArgv: [], // our own preload, and the host's, have no business there
      env,
      stdout: true,
      stderr: true,
      trackUnmanagedFds: false,
      resourceLimits: { maxYoungGenerationSizeMb: 4, maxOldGenerationSizeMb: 48 },
    });
    const gone = (error) => this.gone(worker, error);
    worker.on('error', gone);
    worker.on('exit', gone);
    worker.unref();
    port1.on('message', (answer) => this.answer(answer));
    port1.unref();
    Object.assign(this, { worker, port: port1, flag: new Int32Array(flag) });
  }

  gone(worker, error) {
    if (this.worker !== worker) return;
    this.worker = null;
    this.port.close();
    for (const id of [...this.asked.keys()]) this.answer({ id, error: (error && error.code) || 'sender ended' });
  }

  /** Ask for one thing, { body, path } or { files }; *callback* gets { status, retryAfter } or { error }. */
  ask(wanted, callback) {
    const id = ++this.ids;
    this.asked.set(id, callback);
    try {
      this.isStarting = true;
      if (!this.worker) this.start();
      this.port.postMessage({ ...wanted, id });
    } catch (error) {
      this.answer({ id, error: error.code || error.message });
    } finally {
      this.isStarting = false;
    }
  }

  answer(answer) {
    const callback = this.asked.get(answer.id);
    this.asked.delete(answer.id);
    if (callback) callback(answer);
  }

  /** Block until all that was asked is answered: for *limit* milliseconds, and before that until the thread is up. */
  wait(limit) {
    let end = now() + THREAD_START;
    let isUp = false;
    while (this.worker && this.asked.size) {
      const seen = Atomics.load(this.flag, 0);
      const received = threads.receiveMessageOnPort(this.port);
      if (received) {
        this.answer(received.message);
        continue;
      }
      if (!isUp && Atomics.load(this.flag, 1)) {
        isUp = true;
        end = now() + limit;
      }
      const left = end - now();
      if (left <= 0) return;
      Atomics.wait(this.flag, 0, seen, left);
    }
  }

  close() {
    const worker = this.worker;
    this.worker = null;
    if (worker) worker.terminate();
  }
}

// -------------------------------------------------------------------------------------------------- the spool

/** Files of batches that nobody has taken, for the next start of the same service. Only of our own user. */
class Spool {
  /** *broke* is told of what fails and stands in nobody's way. */
  constructor(settings, broke) {
    this.broke = broke;
    const user = process.getuid ? process.getuid() : 'user';
    this.folder = settings.spool || path.join(os.tmpdir(), `soulfra-${user}`);
    this.prefix = `${settings.service}.node.`;
    this.settings = settings;
  }

  file(boot) {
    return path.join(this.folder, `${this.prefix}${boot}.jsonl`);
  }

  /** Write whole bodies in place of what stood there. Returns false where the spool is full. */
  write(boot, bodies) {
    fs.mkdirSync(this.folder, { recursive: true, mode: 0o700 });
    const found = fs.lstatSync(this.folder);
    if (!found.isDirectory() || (process.getuid && found.uid !== process.getuid()) || found.mode & 0o022) {
      throw new Error(`${this.folder} must be a folder that only its user may write to`);
    }
    const text = bodies.map((body) => `${body}\n`).join('');
    const others = this.files(boot).reduce((sum, file) => sum + sizeOf(file), 0);
    if (others + text.length > this.settings.spoolBytes) return false;
    const file = this.file(boot);
    const draft = `${file}.new`;
    fs.rmSync(draft, { force: true });
    const descriptor = fs.openSync(draft, 'wx', 0o600);
    fs.writeSync(descriptor, text);
    fs.closeSync(descriptor);
    fs.renameSync(draft, file);
    return true;
  }

  remove(boot) {
    fs.rmSync(this.file(boot), { force: true });
  }

  /** What others have left; what is too old to matter goes. */
  files(boot) {
    let names;
    try {
      names = fs.readdirSync(this.folder);
    } catch (error) {
      if (error.code !== 'ENOENT') this.broke(error); // else no folder, nothing left
      return [];
    }
    const own = path.basename(this.file(boot));
    const files = names.filter((name) => name.startsWith(this.prefix) && name.endsWith('.jsonl') && name !== own);
    return files.map((name) => path.join(this.folder, name)).filter((file) => this.keeps(file));
  }

  keeps(file) {
    try {
      const found = fs.lstatSync(file);
      if (!found.isFile() || (process.getuid && found.uid !== process.getuid())) return false;
      if (epoch() - found.mtimeMs < this.settings.spoolAge * 1000) return true;
      fs.rmSync(file, { force: true });
    } catch (error) {
      if (error.code !== 'ENOENT') this.broke(error); // else gone meanwhile
    }
    return false;
  }
}

function sizeOf(file) {
  try {
    return fs.lstatSync(file).size;
  } catch (error) {
    if (error.code !== 'ENOENT') throw error;
    return 0; // gone meanwhile
  }
}

// ------------------------------------------------------------------------------------------- counts of calls

let current = ''; // the watched service that is at work in this turn of the loop

/** Counts of one method, by caller. */
class Cells {
  constructor(service, method) {
    this.service = service;
    this.method = method;
    this.byCaller = new Map();
    this.caller = null;
    this.cell = null;
  }

  /** Count a call that took *taken* milliseconds. */
  count(caller, taken, failed) {
    let cell = this.cell;
    if (caller !== this.caller || cell === null) cell = this.of(caller);
    const seconds = taken / 1000;
    cell.count++;
    cell.seconds += seconds;
    if (failed) cell.failures++;
    let bucket = 0;
    while (bucket < 12 && seconds > BOUNDS[bucket]) bucket++;
    cell.buckets[bucket]++;
  }

  of(caller) {
    let cell = this.byCaller.get(caller);
    if (!cell) {
      cell = { count: 0, failures: 0, seconds: 0, buckets: new Array(13).fill(0) };
      this.byCaller.set(caller, cell);
    }
    this.caller = caller;
    this.cell = cell;
    return cell;
  }

  /** Give what was counted since the last time, as the wire wants it. */
  take() {
    const calls = [];
    for (const [caller, cell] of this.byCaller) {
      if (!cell.count) continue;
      const { count, failures, seconds, buckets } = cell;
      const call = { service: this.service, method: this.method, count, failures, seconds: round(seconds, 6), buckets };
      if (caller && caller !== this.service) call.caller = caller;
      calls.push(call);
      Object.assign(cell, { count: 0, failures: 0, seconds: 0, buckets: new Array(13).fill(0) });
    }
    return calls;
  }
}

// ------------------------------------------------------------------------------------------ what takes errors

class Monitor {
  constructor(settings) {
    this.settings = settings;
    this.told = new WeakMap(); // error → its event
    this.nobodys = new WeakSet(); // errors that nobody waits for, whoever notices them
    this.shapes = new Map(); // cheap key → { looks, entry }, of this second
    this.alike = new Map(); // key → { template, waiting }
    this.queue = [];
    this.dropped = {};
    this.series = new Map();
    this.declared = new Map();
    this.inflight = new Set();
    this.services = new Map();
    this.undos = [];
    this.noticed = [];
    this.everySecond = [];
    this.failures = { total: 0, last: null, at: -Infinity };
    this.sealed = null;
    this.seq = 0;
    this.ids = 0;
    this.taken = 0; // events
    this.delivered = 0; // events
    this.refusals = 0;
    this.awayFor = 0; // attempts in a row
    this.retryAt = 0;
    this.countsAt = 0;
    this.looks = 0;
    this.spent = 0; // milliseconds of this second
    this.shedding = false;
    this.calm = 0;
    this.busy = false;
    this.soon = null;
    this.timer = null;
    this.started = false;
    this.crashed = false;
    this.broken = new Map();
    this.relay = null;
    this.sender = new Sender(settings);
    this.spool = new Spool(settings, (error) => this.broke('spool', error));
    this.hidden = 0; // texts of which it is told that they could not be redacted
  }

  get boot() {
    if (!this.bootId) this.bootId = require('crypto').randomBytes(16).toString('hex');
    return this.bootId;
  }

  /**
   * Take what was seen. *error* may be anything, or null where only *message* stands for it. An error is told once,
   * however many see it; only that it ended the program is told again. Never throws.
   */
  take(kind, error, more = {}) {
    if (!this.started || this.busy) return null;
    this.busy = true;
    const began = now();
    try {
      return this.admit(kind, error, more);
    } catch (failure) {
      this.broke('take', failure);
      this.drop('own_failure', 1);
      return null;
    } finally {
      this.busy = false;
      this.spent += now() - began;
    }
  }

  admit(kind, error, more) {
    const known = isObject(error) ? this.told.get(error) : undefined;
    if (known && !more.fatal) return known;
    if (known && known.isWaiting && known.event.count === 1) return this.upgrade(known, kind);
    this.taken++;
    const entry = this.entryFor(kind, error, more);
    const slot = entry && this.count(entry, more.fatal);
    if (slot && isObject(error)) this.told.set(error, slot);
    return slot;
  }

  upgrade(slot, kind) {
    Object.assign(slot.event, { kind, handled: false });
    slot.entry.waiting = null; // nothing that survived is like it
    return slot;
  }

  /** Find what the error is alike to, without a look at its stack where there were many like it. */
  entryFor(kind, error, more) {
    const unlike = differenceOf(error, more.facts);
    const shape = `${this.shape(kind, error, more)} ${unlike}`;
    const seen = this.shapes.get(shape);
    const enough = this.shedding ? 1 : FULL_LOOKS_ALIKE;
    if (seen && !more.fatal && seen.looks >= enough) return seen.entry;
    if (!more.fatal && this.looks >= FULL_LOOKS) {
      if (seen) return seen.entry;
      this.drop('rate', 1);
      return null;
    }
    this.looks++;
    const template = this.describe(kind, error, more);
    const key = keyOf(template, shape, unlike);
    let entry = this.alike.get(key);
    if (entry) this.alike.delete(key);
    else entry = { template, waiting: null, times: 0 };
    this.alike.set(key, entry); // the newest last
    if (this.alike.size > ALIKE_LIMIT) this.alike.delete(this.alike.keys().next().value);
    this.shapes.set(shape, { looks: seen ? seen.looks + 1 : 1, entry });
    return entry;
  }

  shape(kind, error, more) {
    const message = more.message || (isObject(error) ? peek(error, 'message') : error);
    const short = String(typeof message === 'symbol' ? '' : message)
      .slice(0, 200)
      .replace(/[0-9a-f]{8,}|\d+/gi, '#');
    const name = isObject(error) ? peek(error, 'name') : typeof error;
    return `${kind} ${more.service || ''} ${String(name)} ${String(isObject(error) ? peek(error, 'code') : '')} ${short}`;
  }

  describe(kind, error, more) {
    const raised =
      error === null || error === undefined ? (more.stack ? [this.place(kind, more)] : []) : chainOf(error);
    const event = {
      kind,
      service: more.service || this.settings.service,
      message: clean(more.message || (raised[0] && (raised[0].message || raised[0].type)) || kind),
      raised,
      handled: more.handled !== false,
      facts: { ...(error ? factsOf(error) : {}), ...more.facts },
      context: cleanValue({ ...codeOf(error), ...more.context }),
      system: systemState(),
      release: this.settings.release,
      severity: more.severity || '',
      problem: more.problem || '',
      fingerprint: more.fingerprint || '',
    };
    for (const [key, value] of Object.entries(event.facts)) {
      if (value === undefined || value === null) delete event.facts[key];
      else if (typeof value === 'string') event.facts[key] = clean(value, 500);
    }
    return event;
  }

  place(kind, more) {
    return { type: kind, message: clean(more.message || kind), relation: 'raised', frames: framesOf(more.stack) };
  }

  count(entry, fatal) {
    if (entry.waiting && !fatal) {
      entry.waiting.event.count++;
      return entry.waiting;
    }
    if (this.queue.length >= this.settings.queueEvents) {
      if (!fatal) {
        this.drop('queue_full', 1);
        return null;
      }
      const gone = this.unqueue(1)[0];
      this.drop('queue_full', gone.event.count);
    }
    const id = this.boot.slice(0, 20) + (++this.ids).toString(16).padStart(12, '0');
    const slot = { event: { id, at: epoch() / 1000, ...entry.template, count: 1 }, entry, isWaiting: true };
    entry.waiting = slot;
    this.queue.push(slot);
    this.flushSoon(this.delayOf(entry.times++));
    return slot;
  }

  /** The first of a kind is told at once, a few more soon, and then what has been counted now and then. */
  delayOf(times) {
    if (times === 0) return 20;
    return times < 5 ? 1000 : this.settings.interval * 1000;
  }

  /** Take the oldest slots off the queue: what is alike to them from now on is counted anew. */
  unqueue(count) {
    const slots = this.queue.splice(0, count);
    for (const slot of slots) {
      slot.isWaiting = false;
      if (slot.entry.waiting === slot) slot.entry.waiting = null;
    }
    return slots;
  }

  drop(reason, count) {
    if (count) this.dropped[reason] = (this.dropped[reason] || 0) + count;
  }

  /** Count a failure of our own, and say so on stderr, once a minute for each place. */
  broke(place, error) {
    this.failures.total++;
    this.failures.last = `${place}: ${clean((error && error.message) || error)}`;
    const last = this.broken.get(place) || -Infinity;
    if (now() - last < 60000 || this.settings.logLevel === 'critical') return;
    this.broken.set(place, now());
    try {
      fs.writeSync(2, `soulfra: ${this.failures.last}\n`);
    } catch {
      // stderr is closed: there is nobody to tell
    }
  }

  // ------------------------------------------------------------------------------------------------ delivery

  flushSoon(delay) {
    const due = now() + delay;
    if (this.soon && this.soon.due <= due) return;
    if (this.soon) timers.clearTimeout(this.soon.timer);
    const timer = timers.setTimeout(() => {
      this.soon = null;
      this.flush();
    }, delay);
    timer.unref();
    this.soon = { due, timer };
  }

  flush() {
    if (this.relay) return this.relayAll();
    if ((this.sealed && this.sealed.asked) || now() < this.retryAt) return;
    this.sealed = this.sealed || this.seal();
    if (!this.sealed) return;
    this.sealed.asked = true;
    const sealed = this.sealed;
    this.sender.ask({ body: sealed.body }, (answer) => this.answered(sealed, answer));
  }

  seal(all = false) {
    const began = now();
    const slots = this.unqueue(BATCH_EVENTS);
    const due = all || now() - this.countsAt >= this.settings.interval * 1000;
    const calls = due || slots.length ? this.takeCalls() : [];
    const declared = due ? this.takeDeclared() : [];
    if (!slots.length && !calls.length && !declared.length && !(due && Object.keys(this.dropped).length)) return null;
    if (due) this.countsAt = began;
    const dropped = this.dropped;
    this.dropped = {};
    let sealed = this.write(slots, calls, declared, dropped);
    while (sealed.body.length > BATCH_BYTES && slots.length > 1) {
      this.queue.unshift(...slots.splice(slots.length >> 1));
      sealed = this.write(slots, calls, declared, dropped);
    }
    this.seq++;
    this.spent += now() - began;
    return sealed;
  }

  write(slots, calls, declared, dropped) {
    const events = slots.map((slot) => withoutEmpty(slot.event));
    const batch = {
      sender: { boot: this.boot, name: `soulfra-node/${VERSION}`, host: os.hostname(), pid: process.pid },
      seq: this.seq + 1,
      ...(events.length && { events }),
      ...(calls.length && { calls }),
      ...(declared.length && { declared }),
      ...(Object.keys(dropped).length && { dropped }),
      ...(this.shedding && { shedding: true }),
    };
    const count = events.reduce((sum, event) => sum + (event.count || 1), 0);
    return {
      body: JSON.stringify(batch),
      seq: batch.seq,
      count,
      dropped,
      asked: false,
      isSpooled: false,
      isTaken: false,
      isLast: false,
    };
  }

  answered(sealed, answer) {
    sealed.asked = false;
    if (answer.status >= 200 && answer.status < 300) this.accepted(sealed);
    else if (sealed.isLast) return;
    else if ([400, 413, 415, 422].includes(answer.status)) this.refused(sealed, answer.status);
    else this.away(sealed, answer);
  }

  accepted(sealed) {
    this.delivered += sealed.count;
    sealed.isTaken = true;
    if (sealed.isLast) return;
    this.over(sealed);
    this.awayFor = 0;
    if (this.queue.length) this.flushSoon(20);
  }

  refused(sealed, status) {
    this.refusals++;
    this.drop('refused', sealed.count);
    for (const [reason, count] of Object.entries(sealed.dropped)) this.drop(reason, count);
    this.over(sealed);
    this.broke('remediator', `a batch was refused with ${status}`);
  }

  over(sealed) {
    this.sealed = null;
    if (sealed.isSpooled) this.unspool();
  }

  unspool() {
    try {
      this.spool.remove(this.boot);
    } catch (error) {
      this.broke('spool', error);
    }
  }

  away(sealed, answer) {
    this.awayFor++;
    const least = answer.retryAfter ? Math.min(answer.retryAfter, 300) * 1000 : 0;
    const backoff = Math.min(60000, 500 * 2 ** Math.min(this.awayFor, 7));
    this.retryAt = now() + Math.max(least, backoff * (0.5 + Math.random() / 2));
    if ([401, 403, 404].includes(answer.status))
      this.broke('remediator', `answers ${answer.status}: see SOULFRA_URL and SOULFRA_TOKEN`);
    if (!sealed.isSpooled) this.keep(sealed, [sealed.body]);
    this.flushSoon(this.retryAt - now() + 1);
  }

  keep(sealed, bodies) {
    try {
      sealed.isSpooled = this.spool.write(this.boot, bodies);
      return sealed.isSpooled;
    } catch (error) {
      this.broke('spool', error);
      return false;
    }
  }

  /** Hand all there is to the remediator before the process is gone: first to the disk, then over the network. */
  flushNow() {
    this.tellNoticed();
    if (this.relay) return this.relayAll();
    const batches = this.sealed ? [this.sealed] : [];
    for (let sealed = this.seal(true); sealed; sealed = this.seal(true)) batches.push(sealed);
    if (!batches.length) return;
    const isSpooled = this.keep(
      batches[0],
      batches.map((sealed) => sealed.body)
    );
    this.sealed = null;
    for (const sealed of batches) {
      sealed.isLast = true;
      if (!sealed.asked) this.sender.ask({ body: sealed.body }, (answer) => this.answered(sealed, answer));
    }
    this.sender.wait(this.settings.exitTimeout * 1000);
    const left = batches.filter((sealed) => !sealed.isTaken);
    if (isSpooled && !left.length) this.unspool();
    if (!isSpooled) for (const sealed of left) this.drop('spool_full', sealed.count);
  }

  /** Send what earlier lives of this service have left. */
  sendLeftovers() {
    const files = this.spool.files(''); // none of them is ours: we have only begun
    if (!files.length) return;
    this.sender.ask({ files }, ({ error, failed = [] }) => {
      for (const why of failed) this.broke('spool', why);
      if (error) this.broke('sender', error);
    });
  }

  /** In a worker thread: the main thread sends for us. */
  relayAll() {
    const events = this.unqueue(this.queue.length).map((slot) => slot.event);
    const message = { events, calls: this.takeCalls(), declared: this.takeDeclared(), dropped: this.dropped };
    this.dropped = {};
    if (events.length || message.calls.length || message.declared.length || Object.keys(message.dropped).length)
      this.relay.postMessage(message);
  }

  absorb({ events, calls, declared, dropped }) {
    for (const event of events) {
      this.taken += event.count;
      if (this.queue.length >= this.settings.queueEvents) {
        this.drop('queue_full', event.count);
        continue;
      }
      this.queue.push({ event, entry: {}, isWaiting: true });
    }
    for (const call of calls) this.addCalls(call);
    for (const item of declared) this.declared.set(`${item.service} ${item.name}`, item);
    for (const [reason, count] of Object.entries(dropped)) this.drop(reason, count);
    if (events.length) this.flushSoon(20);
  }

  // ---------------------------------------------------------------------------------- calls and declared values

  cellsOf(service, method) {
    const key = `${service} ${method}`;
    let cells = this.series.get(key);
    if (!cells) {
      if (this.series.size >= SERIES_LIMIT && method !== 'others') return this.cellsOf(service, 'others');
      cells = new Cells(service, method);
      this.series.set(key, cells);
    }
    return cells;
  }

  addCalls({ service, method, caller = '', count, failures, seconds, buckets }) {
    const cell = this.cellsOf(service, method).of(caller);
    cell.count += count;
    cell.failures += failures;
    cell.seconds += seconds;
    buckets.forEach((value, at) => (cell.buckets[at] += value));
  }

  takeCalls() {
    const calls = [];
    for (const cells of this.series.values()) calls.push(...cells.take());
    return calls;
  }

  takeDeclared() {
    const all = [];
    for (const [key, item] of this.declared) {
      if (item.counter && !item.value) continue;
      all.push({ ...item });
      if (item.counter) item.value = 0;
      else this.declared.delete(key);
    }
    return all;
  }

  declare(name, value, counter, { service, low, high, help } = {}) {
    const of = service || this.settings.service;
    const key = `${of} ${name}`;
    if (!Number.isFinite(value) || (!this.declared.has(key) && this.declared.size >= SERIES_LIMIT)) {
      this.drop('declared', 1);
      return;
    }
    const before = counter && this.declared.has(key) ? this.declared.get(key).value : 0;
    const item = { service: of, name: String(name), value: before + value };
    this.declared.set(key, {
      ...item,
      ...(counter && { counter }),
      ...(low !== undefined && { low }),
      ...(high !== undefined && { high }),
      ...(help && { help }),
    });
  }

  // ---------------------------------------------------------------------------------------------- each second

  tick() {
    const began = now();
    this.shapes.clear();
    this.looks = 0;
    this.shed();
    this.busy = true; // what the looks meet is ours
    try {
      for (const look of this.everySecond) look(began / 1000);
      this.findHung();
    } catch (error) {
      this.broke('tick', error);
    } finally {
      this.busy = false;
    }
    if (this.hidden !== hidden.count) {
      this.hidden = hidden.count;
      this.broke('redaction', `a text is hidden: ${hidden.why}`);
    }
    this.tellNoticed();
    if (now() - this.countsAt >= this.settings.interval * 1000) this.flush();
    this.spent += now() - began;
  }

  /** Take an error a moment later, so that whoever knows more about it comes first. */
  notice(kind, error, more = {}) {
    if (!this.started || this.noticed.length >= this.settings.queueEvents) return;
    this.noticed.push([kind, error, more]);
    if (this.noticed.length === 1) timers.setImmediate(() => this.tellNoticed()).unref();
  }

  tellNoticed() {
    for (const [kind, error, more] of this.noticed.splice(0))
      if (!isObject(error) || !this.nobodys.has(error)) this.take(kind, error, more);
  }

  shed() {
    const share = (this.spent / 1000) * 100; // percent of the second
    this.spent = 0;
    this.calm = share > this.settings.overheadLimit ? 0 : this.calm + 1;
    if (this.calm === 0) this.shedding = true;
    else if (this.calm >= 10) this.shedding = false;
  }

  findHung() {
    const limit = this.settings.hung * 1000;
    for (const call of this.inflight) {
      if (now() - call.began < limit) break; // the oldest stand first
      if (call.isTold) continue;
      call.isTold = true;
      const facts = {
        method: call.cells.method,
        seconds: round((now() - call.began) / 1000),
        limit: this.settings.hung,
      };
      this.notice('hung', null, {
        service: call.cells.service,
        message: `${facts.method} has not come back`,
        facts,
        handled: false,
      });
    }
  }
}

/** What makes errors of one place unlike, as soulfra_monitor/intake.py has it: whom they met, what, and how it ended. */
function differenceOf(error, facts) {
  const { peer, path: file, url, status, exit_code: exit, signal } = facts || {};
  const own = isObject(error) ? ['address', 'port', 'path'].map((name) => peek(error, name)) : [];
  const host = typeof url === 'string' ? url.split('/', 3)[2] : '';
  return [peer, file, host, status, exit, signal, ...own]
    .map((one) => (typeof one === 'string' || typeof one === 'number' ? String(one).slice(0, 200) : ''))
    .join(' ');
}

function keyOf(template, shape, unlike) {
  const frames = template.raised.flatMap((one) =>
    one.frames.map((frame) => `${frame.module}:${frame.function}:${frame.line}`)
  );
  return frames.length
    ? [template.kind, template.service, template.raised.map((one) => one.type), unlike, ...frames].join('\n')
    : shape;
}

function codeOf(error) {
  const code = isObject(error) ? peek(error, 'code') : undefined;
  return typeof code === 'string' || typeof code === 'number' ? { code } : {};
}

function withoutEmpty(event) {
  const kept = {};
  for (const [key, value] of Object.entries(event)) {
    if (value === '' || (Array.isArray(value) && !value.length)) continue;
    if (isObject(value) && !Array.isArray(value) && !Object.keys(value).length) continue;
    if ((key === 'handled' && !value) || (key === 'count' && value === 1)) continue;
    kept[key] = value;
  }
  return kept;
}

// ---------------------------------------------------------------------------------------------------- sources
// Where silent errors surface: source(monitor) begins to observe and returns what ends it.

/** A function that observes: what goes wrong in it is counted, and does not reach who calls it. */
function observer(monitor, place, look) {
  return function observe(...args) {
    try {
      look(...args);
    } catch (error) {
      monitor.broke(place, error);
    }
  };
}

function listen(emitter, name, listener) {
  emitter.on(name, listener);
  return () => emitter.removeListener(name, listener);
}

const kept = []; // Node 16 forgets channels that nobody holds, subscribers and all

function subscribe(name, listener) {
  const channel = channels.channel(name);
  kept.push(channel);
  channel.subscribe(listener);
  return () => channel.unsubscribe(listener);
}

/** Put *make(original)* in place of a method, alike in name, length and visibility. */
function patch(object, name, make) {
  const original = object[name];
  const before = getOwnPropertyDescriptor(object, name);
  const wrapper = alike(make(original), original);
  defineProperty(object, name, {
    value: wrapper,
    writable: true,
    configurable: true,
    enumerable: before ? before.enumerable : false,
  });
  return () => {
    if (object[name] !== wrapper) return; // somebody has put theirs on top
    if (before) defineProperty(object, name, before);
    else delete object[name];
  };
}

function alike(wrapper, original) {
  for (const key of ['name', 'length']) {
    const descriptor = getOwnPropertyDescriptor(original, key);
    if (descriptor) defineProperty(wrapper, key, descriptor);
  }
  const proto = getPrototypeOf(original);
  if (proto !== getPrototypeOf(wrapper)) setPrototypeOf(wrapper, proto);
  return wrapper;
}

function all(undos) {
  return () => undos.forEach((undo) => undo());
}

const isAbort = (error) =>
  isObject(error) && (peek(error, 'name') === 'AbortError' || peek(error, 'code') === 'ABORT_ERR');

/** Uncaught exceptions, and rejections that end the program: the event that changes nothing about the end. */
function crash(monitor) {
  const seen = observer(monitor, 'crash', (error, origin) => {
    const ends = !process.listenerCount('uncaughtException') && !process.hasUncaughtExceptionCaptureCallback();
    monitor.crashed = monitor.crashed || ends;
    if (monitor.relay && ends) return; // the main thread is told by the worker's error event
    const kind = origin === 'unhandledRejection' ? 'rejection' : 'uncaught';
    monitor.take(kind, error, { fatal: ends, handled: !ends, ...(isObject(error) ? {} : { message: String(error) }) });
    if (ends) monitor.flushNow();
  });
  return listen(process, 'uncaughtExceptionMonitor', seen);
}

/**
 * Rejections that a listener of the program's own keeps from ending it. A listener of ours alone would keep it from
 * ending too, so ours is there only while another is. Who handles a rejection within the grace time was only late.
 */
function rejections(monitor) {
  const late = new Map(); // promise → timer
  const seen = observer(monitor, 'rejections', (reason, promise) => {
    const tell = () => {
      late.delete(promise);
      monitor.take('rejection', reason, { handled: true, ...(isObject(reason) ? {} : { message: String(reason) }) });
    };
    const timer = timers.setTimeout(tell, GRACE);
    timer.unref();
    late.set(promise, { timer, tell });
  });
  const others = () => process.listeners('unhandledRejection').filter((listener) => listener !== seen).length;
  const added = (name, listener) => {
    if (name !== 'unhandledRejection' || listener === seen || process.listeners(name).includes(seen)) return;
    process.prependListener(name, seen);
  };
  const removed = (name) => {
    if (name === 'unhandledRejection' && !others()) process.removeListener(name, seen);
  };
  const handled = observer(monitor, 'rejections', (promise) => {
    if (late.has(promise)) timers.clearTimeout(late.get(promise).timer);
    late.delete(promise);
  });
  const ending = observer(monitor, 'rejections', () => {
    for (const { tell } of [...late.values()]) tell();
  });
  if (others()) process.prependListener('unhandledRejection', seen);
  return all([
    listen(process, 'newListener', added),
    listen(process, 'removeListener', removed),
    listen(process, 'rejectionHandled', handled),
    listen(process, 'exit', ending),
    () => process.removeListener('unhandledRejection', seen),
  ]);
}

/** The end: an exit status that says failure, and all that is still to be sent. */
function exit(monitor) {
  let isTold = false;
  const seen = observer(monitor, 'exit', (code) => {
    const status = Number(process.exitCode || code) || 0;
    if (status && !monitor.crashed && !isTold) {
      isTold = true;
      const facts = { exit_code: status };
      const what = monitor.relay ? 'a worker thread' : 'the process';
      const { stack } = new Error('exit');
      monitor.take(monitor.relay ? 'thread' : 'exit', null, {
        message: `${what} ended with ${status}`,
        facts,
        stack,
        handled: false,
      });
    }
    monitor.flushNow();
  });
  // Once more after all others: a promise that the main module waits for in vain becomes a status in one of them.
  const last = (code) => seen(code);
  const ending = () => {
    if (!process.listeners('exit').includes(last)) process.on('exit', last);
  };
  return all([
    listen(process, 'exit', seen),
    listen(process, 'beforeExit', ending),
    () => process.removeListener('exit', last),
  ]);
}

const QUIET_WARNINGS = new Set(['DeprecationWarning', 'ExperimentalWarning', 'PromiseRejectionHandledWarning']);
const WARNING_KINDS = { MaxListenersExceededWarning: 'resource', UnhandledPromiseRejectionWarning: 'rejection' };

function warnings(monitor) {
  const seen = observer(monitor, 'warnings', (warning) => {
    if (!QUIET_WARNINGS.has(warning.name)) monitor.take(WARNING_KINDS[warning.name] || 'logged', warning);
  });
  return listen(process, 'warning', seen);
}

/** Errors that somebody caught and only printed. */
function printed(monitor) {
  const look = observer(monitor, 'console', (args, level) => {
    const error = args.find((arg) => types.isNativeError(arg));
    if (error) monitor.take('logged', error, { context: { level } });
  });
  const wrap = (level) =>
    patch(
      console,
      level,
      (original) =>
        function print(...args) {
          look(args, level);
          return apply(original, this, args);
        }
    );
  return all([wrap('error'), wrap('warn')]);
}

function addressOf(request) {
  const host = peek(request, 'host') || 'localhost';
  const port =
    request.socket && request.socket.remotePort
      ? request.socket.remotePort
      : (request.getHeader('host') || '').split(':')[1];
  const peer = port ? `${host}:${port}` : host;
  return { peer, url: `${request.protocol}//${peer}${String(request.path).split('?')[0]}` };
}

/** Requests by http and https: no answer, a timeout, an answer of 5xx; caught or not. */
function http(monitor) {
  const told = new WeakSet(); // requests
  const failed = observer(monitor, 'http', (request, error) => {
    if (told.has(request) || request.aborted || isAbort(error)) return;
    told.add(request);
    const { peer, url } = addressOf(request);
    const facts = { peer, url, ...factsOf(error) };
    monitor.take('http', error, { message: `${request.method} ${url}: ${messageOf(error)}`, facts });
  });
  const timedOut = observer(monitor, 'http', (request) => {
    if (told.has(request) || request.res) return;
    told.add(request);
    const { peer, url } = addressOf(request);
    const seconds = (request.timeout || 0) / 1000;
    const facts = { peer, url, errno: os.constants.errno.ETIMEDOUT, ...(seconds && { seconds }) };
    monitor.take('http', null, { message: `${request.method} ${url}: timeout`, facts });
  });
  const started = observer(monitor, 'http', ({ request }) => {
    request.on(errorMonitor, (error) => failed(request, error));
    request.on('timeout', () => timedOut(request));
  });
  const answered = observer(monitor, 'http', ({ request, response }) => {
    if (response.statusCode < 500) return;
    const { peer, url } = addressOf(request);
    const facts = { peer, url, status: response.statusCode };
    monitor.take('http_status', null, { message: `${request.method} ${url} answered ${response.statusCode}`, facts });
  });
  return all([
    subscribe('http.client.request.start', started),
    subscribe('http.client.request.error', ({ request, error }) => failed(request, error)),
    subscribe('http.client.response.finish', answered),
  ]);
}

/** The same for fetch and undici. */
function undici(monitor) {
  const urlOf = (request) => `${request.origin}${String(request.path).split('?')[0]}`;
  const failed = observer(monitor, 'undici', ({ request, error }) => {
    if (request.aborted && isObject(error)) monitor.nobodys.add(error);
    if (request.aborted || isAbort(error)) return;
    const facts = { url: urlOf(request), ...factsOf(error) };
    monitor.take('http', error, { message: `${request.method} ${facts.url}: ${messageOf(error)}`, facts });
  });
  const refused = observer(monitor, 'undici', ({ connectParams, error }) => {
    const { protocol, hostname, host, port } = connectParams;
    const facts = { peer: port ? `${hostname}:${port}` : host, url: `${protocol}//${host}/`, ...factsOf(error) };
    monitor.notice('http', error, { message: `${facts.url}: ${messageOf(error)}`, facts });
  });
  const answered = observer(monitor, 'undici', ({ request, response }) => {
    if (response.statusCode < 500) return;
    const facts = { url: urlOf(request), status: response.statusCode };
    monitor.take('http_status', null, { message: `${request.method} ${facts.url} answered ${facts.status}`, facts });
  });
  return all([
    subscribe('undici:request:error', failed),
    subscribe('undici:client:connectError', refused),
    subscribe('undici:request:headers', answered),
  ]);
}

const PORTS = {
  6379: 'redis',
  6380: 'redis',
  26379: 'redis',
  5432: 'database',
  3306: 'database',
  27017: 'database',
  1433: 'database',
  9042: 'database',
};

/** Connections that this process opens, whatever library does: refused, reset, timed out. */
function sockets(monitor) {
  const { Socket } = require('net');
  const known = new WeakSet();
  const failed = observer(monitor, 'sockets', (error) => {
    const facts = factsOf(error);
    const port = Number((facts.peer || '').split(':').pop());
    if (system(error) || system(firstMember(error))) monitor.notice(PORTS[port] || 'http', error, { facts });
  });
  const opening = observer(monitor, 'sockets', (socket) => {
    if (known.has(socket)) return;
    known.add(socket);
    socket.on(errorMonitor, failed);
  });
  return patch(
    Socket.prototype,
    'connect',
    (original) =>
      function connect(...args) {
        opening(this);
        return apply(original, this, args);
      }
  );
}

/** Signals that end a process on somebody's wish. A shell says 128 and their number for its last command. */
const ORDERLY = { SIGHUP: 1, SIGINT: 2, SIGPIPE: 13, SIGTERM: 15 };

/** Programs whose exit status 1 means no, or nothing found, as soulfra_monitor/hooks/exits.py has them. */
const ANSWERS_NO = new Set(
  (
    '[ [[ ack ag cmp colordiff diff egrep expr false fgrep findmnt git grep lsof mountpoint pgrep pidof pkill rg test ' +
    'type which zgrep'
  ).split(' ')
);
const SHELLS = new Set(['ash', 'bash', 'dash', 'ksh', 'sh', 'zsh']);
const SEPARATORS = /&&|\|\||[|;&\n(){}]|\b(?:do|elif|else|if|then|until|while)\b/;
const FIRST_WORD = /^\s*(?:!\s+)?(?:\w+=\S*\s+)*(?:\S*\/)?(\S+)/;
const LINE_LIMIT = 2000;

/** The programs that a child runs, as far as one can see: for a shell, those in its line. */
function programsOf(child) {
  const name = path.basename(String(child.spawnfile || ''));
  const words = Array.isArray(child.spawnargs) ? child.spawnargs.map(String) : [];
  const line = SHELLS.has(name) ? words.slice(words.indexOf('-c') + 1).join(' ') : '';
  const commands = line.slice(0, LINE_LIMIT).split(SEPARATORS).map((part) => FIRST_WORD.exec(part));
  return [name, ...commands.filter(Boolean).map((command) => command[1])];
}

function childFailed(child, code, signal) {
  if (child.killed || !(code || signal)) return false;
  if (signal) return !(signal in ORDERLY);
  if (Object.values(ORDERLY).includes(code - 128)) return false;
  return !(code === 1 && programsOf(child).some((name) => ANSWERS_NO.has(name)));
}

/** Child processes that cannot start, fail or are killed by others; workers of a cluster among them. */
function children(monitor) {
  const started = observer(monitor, 'children', ({ process: child }) => {
    const name = () => path.basename(String(child.spawnfile || 'child process'));
    child.on(
      errorMonitor,
      observer(monitor, 'children', (error) => {
        if (!isAbort(error)) monitor.take('child', error, { facts: factsOf(error) });
      })
    );
    child.once(
      'exit',
      observer(monitor, 'children', (code, signal) => {
        if (!childFailed(child, code, signal)) return;
        const how = signal ? `was ended by ${signal}` : `ended with ${code}`;
        const facts = signal ? { signal } : { exit_code: code };
        monitor.take('child', null, { message: `${name()} ${how}`, facts, context: { child: child.pid } });
      })
    );
  });
  return subscribe('child_process', started);
}

/** Worker threads that die of an error. Their own instances send by way of the main thread. */
function workers(monitor) {
  if (!HAS_WORKER_CHANNEL || monitor.relay) return () => undefined;
  const name = `soulfra ${process.pid} ${now()}`;
  let channel = null;
  const heard = observer(monitor, 'workers', ({ data }) => monitor.absorb(data));
  const started = observer(monitor, 'workers', ({ worker }) => {
    if (monitor.sender.isStarting) return; // ours
    if (!channel) {
      channel = monitor.channel = new threads.BroadcastChannel(name);
      channel.onmessage = heard;
      channel.unref();
    }
    worker.on(
      errorMonitor,
      observer(monitor, 'workers', (error) => {
        monitor.take('thread', error, {
          handled: worker.listenerCount('error') > 0,
          context: { thread: worker.threadId },
        });
      })
    );
  });
  threads.setEnvironmentData('soulfra.main', name);
  return all([
    subscribe('worker_threads', started),
    () => threads.setEnvironmentData('soulfra.main', undefined),
    () => channel && channel.close(),
  ]);
}

const [MAJOR, MINOR] = process.versions.node.split('.').map(Number);
const HAS_WORKER_CHANNEL = MAJOR > 16 || (MAJOR === 16 && MINOR >= 18);

// -------------------------------------------------------------------------------------------------- libraries
// They are found after they are loaded, in require.cache: whoever stands in the way of loading is on the stack of
// every error that loading brings.

const LIBRARIES = [
  ['/lib/router/layer.js', (exports, monitor) => layer(exports, 'handle_error', 'handle_request', monitor)], // Express 4
  ['/router/lib/layer.js', (exports, monitor) => layer(exports, 'handleError', 'handleRequest', monitor)], // Express 5
  [
    '/ioredis/built/Redis.js',
    (exports, monitor) => redisClient((exports.default || exports).prototype, 'silentEmit', monitor),
  ],
  [
    '/@redis/client/dist/lib/client/index.js',
    (exports, monitor) => redisClient((exports.default || exports).prototype, 'emit', monitor),
  ],
]; // how the path of a module ends, and what to do with it

function libraries(monitor) {
  const done = new Set();
  const undos = [];
  let loaded = 0;
  const scan = observer(monitor, 'libraries', () => {
    const names = Object.keys(require.cache);
    if (names.length === loaded) return;
    loaded = names.length;
    for (const name of names) {
      const file = path.sep === '/' ? name : name.split(path.sep).join('/');
      const library = LIBRARIES.find(([ending]) => file.endsWith(ending));
      if (!library || done.has(name) || !require.cache[name].loaded) continue;
      done.add(name);
      const undo = library[1](require.cache[name].exports, monitor);
      if (undo) undos.push(undo);
    }
  });
  monitor.scan = scan;
  monitor.everySecond.push(scan);
  apply(then, Promise.resolve(), [scan]); // after a main program that is CommonJS; a tick would show on stacks
  for (const delay of [10, 50, 200]) timers.setTimeout(scan, delay).unref(); // after one that is not
  return all([() => undos.forEach((undo) => undo())]);
}

/** Errors that Express turns into answers: nobody else hears of them. */
function layer(Layer, ofErrors, ofRequests, monitor) {
  if (typeof Layer !== 'function' || typeof Layer.prototype[ofErrors] !== 'function') return null;
  const undos = [
    patch(
      Layer.prototype,
      ofErrors,
      (original) =>
        function handleError(error, request, response, next) {
          monitor.ofExpress(error, request);
          return apply(original, this, [error, request, response, next]);
        }
    ),
  ];
  if (monitor.settings.forwardRejections && ofRequests === 'handle_request') {
    undos.push(
      patch(
        Layer.prototype,
        ofRequests,
        (original) =>
          function handleRequest(request, response, next) {
            if (this.handle.length <= 3 && !forwarding.has(this.handle)) this.handle = forward(this.handle);
            return apply(original, this, [request, response, next]);
          }
      )
    );
  }
  return all(undos);
}

const forwarding = new WeakSet();

/** An Express 4 handler whose rejection goes to next(), as in Express 5. */
function forward(handler) {
  const forwards = alike(function handle(request, response, next) {
    const result = apply(handler, this, [request, response, next]);
    if (types.isPromise(result)) apply(then, result, [undefined, (error) => next(error || new Error('rejected'))]);
    return result;
  }, handler);
  for (const key of ownKeys(handler)) {
    if (!['name', 'length', 'prototype', 'arguments', 'caller'].includes(key))
      defineProperty(forwards, key, getOwnPropertyDescriptor(handler, key));
  }
  forwarding.add(forwards);
  return forwards;
}

function soulfra(error, request, response, next) {
  next(error);
}

/** Keep an error handler that does nothing at the end of an app, so that each error meets at least one. */
function ensureLast(app) {
  if (typeof app !== 'function' || typeof app.use !== 'function' || typeof app.handle !== 'function') return;
  const router = app.lazyrouter ? app._router : app.router; // in Express 4 `router` throws
  if (!router || !Array.isArray(router.stack) || !router.stack.length) return;
  const last = router.stack[router.stack.length - 1];
  if (last.handle === soulfra) return;
  const at = router.stack.findIndex((one) => one.handle === soulfra);
  if (at >= 0) router.stack.push(...router.stack.splice(at, 1));
  else router.use(soulfra);
}

/** Requests that this process answers: counted by method and route; errors that Express met. */
function requests(monitor) {
  const begun = new WeakMap();
  const apps = new WeakMap(); // server → [number of listeners, apps]
  const started = observer(monitor, 'requests', ({ request, server }) => {
    begun.set(request, now());
    if (!server) return;
    const count = server.listenerCount('request');
    let known = apps.get(server);
    if (!known || known[0] !== count) {
      if (monitor.scan) monitor.scan();
      known = [count, server.listeners('request')];
      apps.set(server, known);
    }
    known[1].forEach(ensureLast);
  });
  const finished = observer(monitor, 'requests', ({ request, response }) => {
    const at = begun.get(request);
    if (at === undefined) return;
    monitor
      .cellsOf(monitor.settings.service, `${request.method} ${routeOf(request)}`.trim().slice(0, 100))
      .count('', now() - at, response.statusCode >= 500);
    if (request.app) ensureLast(request.app);
  });
  return all([subscribe('http.server.request.start', started), subscribe('http.server.response.finish', finished)]);
}

/** The pattern of the route that answered. Express has forgotten where its router is mounted; the address tells. */
function routeOf(request) {
  const route = request.route && request.route.path;
  if (typeof route !== 'string') return '';
  const parts = (text) => String(text).split('?')[0].split('/').filter(Boolean);
  const all = parts(request.originalUrl);
  const mount = all.slice(0, Math.max(0, all.length - parts(route).length));
  return (
    [...mount.map((part) => (/\d/.test(part) || part.length > 32 ? ':id' : part)), ...parts(route)]
      .map((part) => `/${part}`)
      .join('') || '/'
  );
}

function redisClient(prototype, method, monitor) {
  if (!prototype || typeof prototype[method] !== 'function') return null;
  const look = observer(monitor, 'redis', (name, error) => {
    if (name === 'error') monitor.take('redis', error, { facts: factsOf(error) });
  });
  return patch(
    prototype,
    method,
    (original) =>
      function emit(...args) {
        look(args[0], args[1]);
        return apply(original, this, args);
      }
  );
}

// -------------------------------------------------------------------------------------------------- resources

/** A loop that did nothing else for too long. */
function loop(monitor) {
  let delay = null;
  monitor.everySecond.push(() => {
    if (!delay) {
      // Not before the first tick: to load a program takes the loop for a while, and hurts nobody.
      delay = perf.monitorEventLoopDelay({ resolution: 50 });
      delay.enable();
      return;
    }
    const seconds = delay.max / 1e9;
    delay.reset();
    if (seconds < monitor.settings.loopBlocked) return;
    const facts = { seconds: round(seconds, 3), limit: monitor.settings.loopBlocked };
    monitor.notice('loop_blocked', null, { message: 'the event loop was blocked', facts });
  });
  return () => delay && delay.disable();
}

/** Memory that is nearly full, or will be if it goes on like this. */
function memory(monitor) {
  const limit = memoryLimit();
  const heap = { name: 'heap', trend: new Trend(monitor.settings.memory), above: 0, isTold: false };
  const resident = { name: 'resident memory', trend: new Trend(monitor.settings.memory), above: 0, isTold: false };
  monitor.everySecond.push((at) => {
    const { used_heap_size: used, heap_size_limit: most } = v8.getHeapStatistics();
    judgeMemory(monitor, heap, used, most, at);
    judgeMemory(monitor, resident, process.memoryUsage.rss(), limit, at);
  });
  return () => undefined;
}

function judgeMemory(monitor, one, value, limit, at) {
  const { share, full, horizon } = monitor.settings.memory;
  one.above = value > full * limit ? one.above + 1 : 0;
  if (one.above === 0 && value < (full - 0.1) * limit) one.isTold = false;
  if (one.above === 3 && !one.isTold) {
    one.isTold = true;
    const message = `${one.name} is nearly full: ${megabytes(value)} of ${megabytes(limit)}`;
    monitor.notice('memory', null, { message, facts: { value, limit }, handled: false, problem: 'memory_pressure' });
  }
  if (!one.trend.add(value, at) || value < share * limit) return;
  const slope = one.trend.slope();
  const seconds = slope ? (limit - value) / slope : Infinity;
  if (seconds > horizon) return;
  const message = `${one.name} grows by ${megabytes(slope * 60)} a minute and is full in about ${Math.ceil(seconds / 60)} min`;
  monitor.notice('memory', null, {
    message,
    facts: { value, limit, seconds: Math.round(seconds) },
    problem: 'memory_leak',
  });
}

/** Open files and sockets, against the limit of the process. */
function handles(monitor) {
  let limit;
  try {
    limit = handlesLimit();
  } catch (error) {
    if (error.code !== 'ENOENT') throw error;
    return () => undefined; // no /proc here
  }
  let isTold = false;
  let turn = 0;
  monitor.everySecond.push(() => {
    if (turn++ % 5) return;
    const value = fs.readdirSync('/proc/self/fd').length;
    const { full } = monitor.settings.handles;
    if (value < (full - 0.1) * limit) isTold = false;
    if (value < full * limit || isTold) return;
    isTold = true;
    const facts = { value, limit };
    monitor.notice('handles', null, {
      message: `${value} of ${limit} files and sockets are open`,
      facts,
      handled: false,
    });
  });
  return () => undefined;
}

const SOURCES = {
  crash,
  rejections,
  exit,
  warnings,
  console: printed,
  http,
  undici,
  sockets,
  children,
  workers,
  libraries,
  requests,
  loop,
  memory,
  handles,
};

// ---------------------------------------------------------------------------------------------------- services

const LEFT_ALONE = new Set([
  'constructor',
  'then',
  'catch',
  'finally',
  'toString',
  'toJSON',
  'valueOf',
  'toLocaleString',
  'inspect',
]);
const { Stream, Readable, Writable, Duplex, Transform, PassThrough } = require('stream');
const FOREIGN = new Set(
  [EventEmitter, Stream, Readable, Writable, Duplex, Transform, PassThrough].map((maker) => maker.prototype)
);
const toText = Function.prototype.toString;

function isForeign(prototype) {
  const maker = getOwnPropertyDescriptor(prototype, 'constructor');
  if (FOREIGN.has(prototype)) return true;
  return Boolean(maker && typeof maker.value === 'function' && toText.call(maker.value).includes('[native code]'));
}

function isMethod(name, value, options) {
  if (typeof value !== 'function' || typeof name !== 'string' || LEFT_ALONE.has(name)) return false;
  if (options.methods ? !options.methods.includes(name) : name.startsWith('_')) return false;
  return !/^class\b/.test(toText.call(value)) && !(/^[A-Z]/.test(name) && 'prototype' in value);
}

const tagOf = (value) => Object.prototype.toString.call(value);

/** The wrapper of one method. It returns what the method returns; a promise of an async method with one step more. */
function watched(monitor, service, name, original, options) {
  const cells = monitor.cellsOf(service, name);
  const slow = (options.slow === undefined ? monitor.settings.slow : options.slow) * 1000;
  const { failed } = options;

  function over(caller, began, error) {
    const taken = now() - began;
    cells.count(caller, taken, error !== null);
    if (error !== null)
      monitor.take('method', error.reason, {
        service,
        facts: { method: name },
        ...(isObject(error.reason) ? {} : { message: String(error.reason) }),
      });
    else if (taken >= slow) tooSlow(taken);
  }

  function tooSlow(taken) {
    const facts = { method: name, seconds: round(taken / 1000, 3), limit: slow / 1000 };
    monitor.take('slow', null, { service, message: `${name} was slow`, facts });
  }

  function returned(caller, began, value) {
    if (!failed) return over(caller, began, null);
    let what = false;
    try {
      what = failed(value, name);
    } catch (error) {
      monitor.broke(`failed() of ${service}`, error);
    }
    if (!what) return over(caller, began, null);
    cells.count(caller, now() - began, true);
    monitor.take('returned', null, {
      service,
      message: typeof what === 'string' ? what : `${name} returned what means failure`,
      facts: { method: name },
    });
  }

  function promised(caller, began, promise) {
    const call = { began, cells, isTold: false };
    monitor.inflight.add(call);
    const fulfilled = (value) => {
      monitor.inflight.delete(call);
      returned(caller, began, value);
      return value;
    };
    const rejected = (reason) => {
      monitor.inflight.delete(call);
      over(caller, began, { reason });
      throw reason;
    };
    return isFresh ? apply(then, promise, [fulfilled, rejected]) : once(promise, fulfilled, rejected);
  }

  const handedOut = new WeakMap(); // promise of the method → the one that was handed out for it
  /** A method that is not async may give the same promise twice: so do we, and count both. */
  function once(promise, fulfilled, rejected) {
    const known = handedOut.get(promise);
    if (known) {
      apply(then, apply(then, promise, [fulfilled, rejected]), [undefined, () => undefined]);
      return known;
    }
    const result = apply(then, promise, [fulfilled, rejected]);
    handedOut.set(promise, result);
    return result;
  }

  const kind = tagOf(original);
  const isFresh = kind === '[object AsyncFunction]'; // each call makes a promise of its own
  const iterates = kind === '[object GeneratorFunction]' || kind === '[object AsyncGeneratorFunction]';
  const { wrapper } = {
    wrapper(...args) {
      const caller = current;
      const began = now();
      let result;
      current = service;
      try {
        result = apply(original, this, args);
      } catch (reason) {
        over(caller, began, { reason });
        throw reason;
      } finally {
        current = caller;
      }
      if (iterates) watchIteration(result, service, (taken, error) => over(caller, now() - taken, error));
      else if (typeof result === 'object' && isPlainPromise(result)) return promised(caller, began, result);
      else if (failed) returned(caller, began, result);
      else {
        const taken = now() - began;
        cells.count(caller, taken, false);
        if (taken >= slow) tooSlow(taken);
      }
      return result;
    },
  };
  return alike(wrapper, original);
}

/** Only promises of which nobody can tell one from another; what has more to it is handed on as it is. */
function isPlainPromise(value) {
  // Symbols do not count: with async hooks on, Node itself marks promises with some.
  return (
    types.isPromise(value) &&
    getPrototypeOf(value) === Promise.prototype &&
    Object.getOwnPropertyNames(value).length === 0
  );
}

/** Count a generator when it ends; the time is what its steps took. */
function watchIteration(iterator, service, ended) {
  let taken = 0;
  let isOver = false;
  const end = (error) => {
    if (!isOver) ended(taken, error);
    isOver = true;
  };
  const step = (method) => {
    const { run } = {
      run(...args) {
        const caller = current;
        const began = now();
        const settle = (result) => {
          taken += now() - began;
          if (result && result.done) end(null);
          return result;
        };
        const fail = (reason) => {
          taken += now() - began;
          end({ reason });
          throw reason;
        };
        let result;
        current = service;
        try {
          result = apply(method, this, args);
        } catch (reason) {
          fail(reason);
        } finally {
          current = caller;
        }
        return types.isPromise(result) ? apply(then, result, [settle, fail]) : settle(result);
      },
    };
    return alike(run, method);
  };
  for (const name of ['next', 'return', 'throw']) {
    defineProperty(iterator, name, {
      value: step(iterator[name]),
      writable: true,
      configurable: true,
      enumerable: false,
    });
  }
}

/**
 * Watch the methods of an object: those of its classes by a prototype of its own between it and its class, so that
 * private fields, getters and identity stay; those that it holds itself in their place. Returns what undoes it.
 */
function watch(monitor, service, instance, options) {
  const undos = [];
  for (const name of ownKeys(instance)) {
    const property = getOwnPropertyDescriptor(instance, name);
    if (!('value' in property) || !isMethod(name, property.value, options) || !property.configurable) continue;
    const wrapper = watched(monitor, service, name, property.value, options);
    if (!Reflect.defineProperty(instance, name, { ...property, value: wrapper })) continue;
    undos.push(() => instance[name] === wrapper && defineProperty(instance, name, property));
  }
  const before = getPrototypeOf(instance);
  const methods = typeof instance === 'function' ? new Map() : methodsOf(before, options);
  for (const name of ownKeys(instance)) methods.delete(name);
  if (methods.size && Object.isExtensible(instance)) {
    const between = Object.create(before);
    for (const [name, property] of methods) {
      defineProperty(between, name, { ...property, value: watched(monitor, service, name, property.value, options) });
    }
    setPrototypeOf(instance, between);
    undos.push(() => getPrototypeOf(instance) === between && setPrototypeOf(instance, before));
  }
  if (!undos.length) monitor.broke(`addService ${service}`, 'no method of it can be watched');
  return all(undos);
}

function methodsOf(prototype, options) {
  const methods = new Map();
  const known = new Set();
  for (let one = prototype; one && !isForeign(one); one = getPrototypeOf(one)) {
    for (const name of ownKeys(one)) {
      if (known.has(name)) continue;
      known.add(name);
      const property = getOwnPropertyDescriptor(one, name);
      if ('value' in property && isMethod(name, property.value, options)) methods.set(name, property);
    }
  }
  return methods;
}

// ------------------------------------------------------------------------------------------------- for programs

/** What a program gets. Nothing of it throws because of us. */
class ErrorMonitoring {
  #monitor;

  constructor(monitor) {
    this.#monitor = monitor;
  }

  /**
   * Watch the methods of *instance* under the name *name*, and return it. Options: slow (seconds), failed (a function
   * of a returned value that says whether it means failure: true, or a text about it), methods (only these names).
   */
  addService(name, instance, options = {}) {
    const monitor = this.#monitor;
    if (!isObject(instance)) throw new TypeError(`addService: ${name} is no object`);
    if (!monitor.started || (monitor.services.has(name) && monitor.services.get(name).instance === instance))
      return instance;
    this.removeService(name);
    monitor.services.set(name, { instance, undo: watch(monitor, nameOf(name), instance, options) });
    return instance;
  }

  /** Undo addService. */
  removeService(name) {
    const known = this.#monitor.services.get(name);
    this.#monitor.services.delete(name);
    if (known) known.undo();
  }

  /** Report an error, or a text. Options: service, facts, context, severity, problem, fingerprint, handled. */
  report(error, options = {}) {
    const isText = typeof error === 'string';
    this.#monitor.take(
      'reported',
      isText ? null : error,
      isText ? { message: error, stack: new Error(error).stack, ...options } : options
    );
  }

  /** Say what a value is now. Options: service, help, low and high, below and above which people want to know. */
  gauge(name, value, options) {
    this.#monitor.declare(name, value, false, options);
  }

  /** Add to a counter. */
  count(name, by = 1, options = {}) {
    this.#monitor.declare(name, by, true, options);
  }

  /**
   * Say that a job or a loop is alive. *state* is 'start', 'fail' or an exit status; nothing means done and well. One that
   * cannot be told is not told later: a heartbeat is about now.
   */
  heartbeat(name, state) {
    const monitor = this.#monitor;
    const tail = state === undefined || state === '' ? '' : `/${encodeURIComponent(state)}`;
    const path = `heartbeats/${encodeURIComponent(name)}${tail}`;
    if (monitor.started)
      monitor.sender.ask({ body: '{}', path }, ({ status, error }) => {
        if (!(status < 300)) monitor.broke('heartbeat', `${name} was not taken: ${error || `status ${status}`}`);
      });
  }

  /** Hear the 'error' events of an emitter, a client of some server for example, without being a listener for them. */
  watchEmitter(emitter, name, { kind = 'callback' } = {}) {
    const monitor = this.#monitor;
    emitter.on(
      errorMonitor,
      observer(monitor, 'watchEmitter', (error) => {
        monitor.take(kind, error, {
          facts: factsOf(error),
          context: { emitter: String(name) },
          message: isObject(error) ? undefined : String(error),
        });
      })
    );
    return emitter;
  }

  /** Middleware for the start of an app. Without it the same happens from the second request on. */
  express() {
    const look = observer(this.#monitor, 'express', (request) => ensureLast(request.app));
    return function soulfraRequests(request, response, next) {
      look(request);
      next();
    };
  }

  /** Error middleware, for routers that are not Express's own; the error goes on unchanged. */
  expressErrors() {
    const monitor = this.#monitor;
    return function soulfraErrors(error, request, response, next) {
      monitor.ofExpress(error, request);
      next(error);
    };
  }

  /** Send what there is. Resolves with true when all of it has been taken, with false after *seconds*. */
  flush(seconds = 5) {
    const monitor = this.#monitor;
    const end = now() + seconds * 1000;
    monitor.tellNoticed();
    monitor.countsAt = -Infinity;
    return new Promise((resolve) => {
      const look = () => {
        if (!monitor.started || monitor.relay) return resolve(monitor.started);
        monitor.flush();
        if (!monitor.sealed && !monitor.queue.length) return resolve(true);
        return now() > end ? resolve(false) : timers.setTimeout(look, 10);
      };
      look();
    });
  }

  /** Numbers about ourselves: events taken, delivered, waiting and dropped, failures, whether we shed work. */
  stats() {
    const { taken, delivered, queue, sealed, dropped, failures, shedding, awayFor } = this.#monitor;
    const waiting = queue.reduce((sum, slot) => sum + slot.event.count, 0) + (sealed ? sealed.count : 0);
    return {
      taken,
      delivered,
      waiting,
      dropped: { ...dropped },
      failures: failures.total,
      lastFailure: failures.last,
      shedding,
      remediatorAway: awayFor > 0,
    };
  }

  /** End all observation and leave the process as it was. */
  close() {
    this.#monitor.stop();
  }
}

Object.assign(Monitor.prototype, {
  start() {
    if (this.started || !this.settings.enabled) return;
    this.started = true;
    const main = threads.isMainThread ? null : threads.getEnvironmentData('soulfra.main');
    if (main) {
      this.relay = new threads.BroadcastChannel(main);
      this.relay.unref();
    }
    for (const [name, source] of Object.entries(SOURCES)) {
      if (this.settings.without.includes(name)) continue;
      try {
        this.undos.push(source(this));
      } catch (error) {
        this.broke(name, error);
      }
    }
    this.countsAt = now();
    this.timer = timers.setInterval(() => this.tick(), 1000);
    this.timer.unref();
    if (!this.relay) this.sendLeftovers();
  },

  stop() {
    if (!this.started) return;
    for (const { undo } of this.services.values()) undo();
    this.services.clear();
    all(this.undos.reverse())();
    this.undos = [];
    this.everySecond = [];
    timers.clearInterval(this.timer);
    if (this.soon) timers.clearTimeout(this.soon.timer);
    this.soon = null;
    this.flushNow();
    this.started = false;
    this.sender.close();
    if (this.relay) this.relay.close();
    this.relay = null;
  },

  /** New settings for what runs already: the preload came first, and the program knows better. */
  configure(settings) {
    const { url, token, service, spool } = this.settings;
    Object.assign(this.settings, settings);
    if (url !== settings.url || token !== settings.token) this.sender.close();
    if (service !== settings.service || spool !== settings.spool) this.spool = new Spool(this.settings);
  },

  ofExpress(error, request) {
    const status = Number(peek(Object(error), 'status') || peek(Object(error), 'statusCode')) || 500;
    if (status < 500 || !request || (!isObject(error) && this.told.get(request) === error)) return;
    if (!isObject(error)) this.told.set(request, error);
    const route = routeOf(request);
    const context = {
      request: {
        method: request.method,
        path: String(request.originalUrl || request.url).split('?')[0],
        ...(route && { route }),
      },
    };
    this.take('callback', error, {
      context,
      facts: { status },
      ...(isObject(error) ? {} : { message: String(error) }),
    });
  },
});

/** Begin, once in each process (or thread), and return what programs use. Throws TypeError for bad settings. */
function start(options) {
  const running = globalThis[ONE];
  if (running && running.monitor.started) {
    if (options) running.monitor.configure(readSettings(options));
    return running.api;
  }
  const monitor = new Monitor(readSettings(options));
  const api = new ErrorMonitoring(monitor);
  defineProperty(globalThis, ONE, { value: { monitor, api }, configurable: true, enumerable: false, writable: true });
  monitor.start();
  return api;
}

module.exports = start;
module.exports.internals = { Trend, redact, cleanValue, isSecretKey, framesOf, chainOf };

const isPreloaded =
  (module.parent && module.parent.id === 'internal/preload') ||
  (!module.parent &&
    /--import[= ]\S*silent-error-monitoring/.test([...process.execArgv, process.env.NODE_OPTIONS].join(' ')));

if (isPreloaded) {
  try {
    start();
  } catch (error) {
    fs.writeSync(2, `soulfra: ${error.message}\n`); // a program is never kept from running by who watches it
  }
}
