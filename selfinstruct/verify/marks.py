"""What gives a language away: a table of marks for each, with weights. Counting them is `guess`'s."""

from __future__ import annotations

from typing import Final

# (weight, pattern) for each language; `^` is the start of a line. A pattern counts once, however often it fits.
MARKS: Final[dict[str, str]] = {
    "python": r"""
        4 ^[ \t]*(?:async\s+)?def\s+\w+\s*\([^{;\n]*[ \t]*(?:\#.*)?$
        4 ^[ \t]*class\s+\w+(?:\([\w., =]*\))?:[ \t]*(?:\#.*)?$
        4 ^from\s+[\w.]+\s+import\s+[\w*(]
        3 ^import\s+[a-z_][\w.]*(?:\s+as\s+\w+)?(?:,\s*\w+)*[ \t]*$
        3 ^[ \t]*(?:if|elif|while|for|with|except)\b[^{;\n]*[^{;:]:[ \t]*(?:\#.*)?$
        2 ^[ \t]*(?:else|try|finally):[ \t]*(?:\#.*)?$
        4 ^if\s+__name__\s*==
        5 ^>>> \S
        3 ^@\w[\w.]*(?:\(.*\))?\n(?:async\s+)?(?:def|class)\b
        3 \bprint\(
        3 \b(?:elif|lambda\s+[\w, *]*:|self\.\w+|None\b|__init__)
        2 \b(?:True|False|not\s+in|len\(|range\(|is\s+None|str\(|int\(|sorted\(|enumerate\()
        2 \bfor\s+\w+(?:\s*,\s*\w+)*\s+in\s+[^{;\n]*[\])]
        1 ^[A-Za-z_]\w*\s*=\s*[^;{=]*$
        1 (?:^|[ \t])\#[ \t]\w
        2 \b[fr]["'][^"'\n]*["']
        2 \b(?:np|pd|plt|os|re|tf)\.\w+
    """,
    "javascript": r"""
        3 ^[ \t]*(?:export\s+(?:default\s+)?)?(?:async\s+)?function\s*\*?\s*\w*\s*\([^)$:]*\)\s*\{
        3 ^[ \t]*(?:export\s+)?(?:const|let|var)\s+[\w$]+\s*(?:=|;|$)
        3 ^[ \t]*(?:const|let|var)\s+[\[{][^=\n]*[\]}]\s*=
        3 \bconsole\.\w+\(
        3 (?:\)|\b\w+)\s*=>\s*[\w({\[`"'!<]
        4 \b(?:document|window)\.\w+|\baddEventListener\(|\bmodule\.exports\b|\brequire\(['"]
        3 ===|!==
        2 \b(?:null|undefined|typeof|new\s+(?:Promise|Date|Map|Set|Array|Error|RegExp)\b)
        3 ^import\s+(?:[\w*{][^;\n]*\s+from\s+)?['"]
        2 \.(?:length|forEach|map|filter|push|then)\b
        3 ^\$\(|\$\.(?:ajax|get|post)\(|\bjQuery\b
        3 \bfor\s*\(\s*(?:let|const|var)\b
        2 `[^`]*\$\{
        1 ;[ \t]*$
        1 ^[ \t]*//
        2 \b(?:Math\.\w+|JSON\.\w+|parseInt|parseFloat)\(
        4 ^db\.\w+\.\w+\(
    """,
    "typescript": r"""
        5 ^[ \t]*(?:export\s+)?(?:interface|enum)\s+\w+(?:<[^>]*>)?[^;{\n]*\{
        5 ^[ \t]*(?:export\s+)?type\s+\w+(?:<[^=]*>)?\s*=
        5 [\w)?\]]\s*:\s*(?:string|number|boolean|unknown|any|void|never|Promise<[^>]*>)(?:\[\])?\s*[,;)={|&\n]
        4 ^[ \t]*(?:const|let|var)\s+\w+\s*:\s*\w
        2 \b(?:readonly\s+\w+|as\s+const|keyof|satisfies|Record<|Partial<)
        3 ^[ \t]*(?:export\s+)?(?:async\s+)?function\s+\w+(?:<[^>]*>)?\([^)]*\w\??:\s*\w
        2 \bconsole\.\w+\(
        2 (?:\)|\b\w+)\s*=>
        1 ^[ \t]*(?:const|let)\s
        1 ^import\s+(?:type\s+)?[\w*{][^;\n]*\s+from\s+['"]
    """,
    "java": r"""
        5 \bpublic\s+static\s+void\s+main\s*\(
        5 \bSystem\.(?:out|err|in)\b
        3 ^[ \t]*(?:public|private|protected)\s+(?:static\s+)?(?:final\s+)?[\w<>\[\], ?]+\s+\w+\s*(?:\(|=|;)
        2 ^[ \t]*(?:public\s+)?(?:abstract\s+|final\s+)?(?:class|interface|enum|record)\s+\w+
        4 ^import\s+(?:static\s+)?(?:java|javax|org|com)\.[\w.*]+;
        3 ^[ \t]*@(?:Override|Test|Autowired|Entity|RestController|Service)\b
        2 \bString(?:\[\])?\s+\w+
        2 \b(?:extends|implements|throws)\s+[A-Z]\w+
        3 \b(?:ArrayList|HashMap|List|Map|Integer|Scanner|StringBuilder|Optional|Stream)\b[<.( ]
        2 ^[ \t]*(?:int|double|boolean|char|long|float)(?:\[\])?\s+\w+\s*(?:=|;|\()
        1 ;[ \t]*$
        2 \bnew\s+[A-Z]\w*(?:<[^>]*>)?\(
        1 ^[ \t]*//
        2 \.(?:length\(\)|charAt\(|equals\(|toCharArray\(|add\(|get\()
    """,
    "c": r"""
        5 ^[ \t]*\#\s*include\s*<(?:std(?:io|lib|int|bool|def|arg)|string|math|ctype|time|errno|unistd|assert|limits|signal|pthread)\.h>
        3 ^[ \t]*\#\s*(?:include|define|ifdef|ifndef|endif|pragma)\b
        3 \b(?:printf|scanf|malloc|calloc|free|sizeof|strlen|strcpy|strcmp|memcpy|memset|fgets|fopen)\s*\(
        3 \bint\s+main\s*\(
        3 ^[ \t]*(?:typedef\s+)?struct\s+\w*\s*\{
        3 \b(?:char|int|float|double|void|struct\s+\w+|size_t|long)\s*\*+\s*\w
        2 ^(?:static\s+)?(?:const\s+)?(?:int|void|char|double|float|long|unsigned|bool|size_t|uint\d+_t|int\d+_t)\b[\w \t*]*\(
        2 ^[ \t]*(?:unsigned\s+|const\s+)?(?:int|char|float|double|long)\s+\w+(?:\[[^\]]*\])*\s*(?:=|;|,)
        2 ->\w
        1 ;[ \t]*$
        1 ^[ \t]*(?:/\*|//)
        1 \bNULL\b
    """,
    "cpp": r"""
        6 ^[ \t]*\#\s*include\s*<(?:iostream|vector|string|map|set|algorithm|memory|bits/stdc\+\+\.h|cmath|cctype|cstd\w+|unordered_\w+|sstream|fstream|queue|stack|array|functional|optional|utility|numeric|thread|mutex|string_view)>
        5 \bstd::\w
        4 \busing\s+namespace\s+\w
        5 \b(?:cout\s*<<|cin\s*>>)
        4 ^[ \t]*template\s*<
        3 ^[ \t]*(?:public|private|protected)\s*:[ \t]*$
        3 \b(?:vector|map|set|pair|unique_ptr|shared_ptr|unordered_map|queue|stack)<
        2 \bclass\s+\w+[^;{]*\{
        2 \b\w+::~?\w+\s*\(
        2 \b(?:nullptr|auto\s+\w|const\s+auto\s*&|constexpr|noexcept|string\s+\w+)\b
        2 \bint\s+main\s*\(
        1 ^[ \t]*(?:int|void|bool|double|char|float|string)\b[\w \t*&:<>]*\(
        1 ^[ \t]*(?:const\s+)?(?:int|char|float|double|bool|string)\s+\w+(?:\[[^\]]*\])*\s*(?:=|;|,)
        1 ;[ \t]*$
        1 ^[ \t]*//
        2 ^[ \t]*\#\s*(?:include|define|pragma)\b
    """,
    "csharp": r"""
        5 \bConsole\.(?:Write|Read)\w*\(
        5 ^[ \t]*using\s+(?:System|Microsoft|Xunit|UnityEngine|Newtonsoft)[\w.]*;
        4 \{\s*get;
        4 ^[ \t]*namespace\s+[\w.]+\s*[;{]?[ \t]*$
        3 \bstatic\s+(?:async\s+)?(?:void|int|Task(?:<\w+>)?)\s+Main\s*\(
        3 ^[ \t]*(?:public|private|internal|protected)\s+(?:static\s+|async\s+|override\s+|readonly\s+|sealed\s+|virtual\s+)*(?:string|bool|int|void|var|decimal|Task|IEnumerable|List|class|record|struct|interface)\b
        3 \b(?:foreach\s*\(|IEnumerable<|string\.\w+\(|\bLinq\b|\.ToList\(\)|\.Select\(|\.Where\(|\.OrderBy\()
        2 ^[ \t]*var\s+\w+\s*=\s*(?:new\s+[A-Z]|from\s)
        3 \bfrom\s+\w+\s+in\s+[\w.]+\s*\n?\s*(?:where|select|orderby|group|join)\b
        2 \bnew\s+(?:List|Dictionary|HashSet)<
        3 ^[ \t]*\[(?:Theory|Fact|HttpGet|HttpPost|Serializable|Test|TestMethod|ApiController)\b
        1 ;[ \t]*$
        1 ^[ \t]*(?:string|int|double|bool|decimal|var)(?:\[\])?\s+\w+\s*(?:=|;)
        3 \$"[^"\n]*\{
    """,
    "go": r"""
        6 ^package\s+\w+[ \t]*$
        4 ^func\s+(?:\(\s*\w+\s+\*?\w+(?:\[[^\]]*\])?\s*\)\s*)?\w+(?:\[[^\]]*\])?\(
        4 \bfmt\.(?:Print|Sprint|Errorf|Fprint|Scan)\w*
        3 [\w)\]]\s*:=\s
        4 \bif\s+err\s*!=\s*nil\b
        3 ^[ \t]*for\s+[\w, _]*:?=?\s*range\s[^:]*\{
        3 ^type\s+\w+\s+(?:struct|interface|func)\b
        3 ^import\s+(?:\(|")
        2 \b(?:make\((?:map|chan|\[\])|chan\s+\w|go\s+func\(|defer\s+\w|map\[\w+\]\w)
        2 \bnil\b
    """,
    "rust": r"""
        4 \bfn\s+\w+(?:<[^>]*>)?\s*\([^)]*\)\s*(?:->\s*[^{;]+)?\s*(?:where[^{]*)?\{
        5 \b(?:println|print|vec|format|assert_eq|assert|panic|eprintln|write|writeln|todo)!\s*[(\[]
        4 \blet\s+mut\s
        4 ^[ \t]*use\s+(?:std|crate|super|self|\w+)::[\w:{}, *]+;
        4 ^[ \t]*(?:pub(?:\(crate\))?\s+)?(?:impl|trait|struct|enum|mod)\b[^;(]*\{
        4 \#!?\[(?:derive|cfg|test|allow|inline)
        3 &(?:mut\s+\w|str\b|'\w+\s)
        3 \b(?:Vec|Option|Result|Box|HashMap|Rc|Arc)<
        2 \b(?:Some|Ok|Err)\(
        3 \bmatch\s+[^{\n]+\{
        2 \b\w+::\w+[(<:]
        2 \b(?:u8|u32|u64|i32|i64|usize|f64)\b
        1 \.(?:iter|unwrap|collect|to_string|clone)\(
    """,
    "sql": r"""
        5 ^[ \t(]*(?i:select)\s+(?:(?i:distinct|top\s+\d+)\s+)?[\w*("'`\[@][\s\S]{0,2000}?\b(?i:from)\b
        5 ^[ \t]*(?i:insert\s+into|delete\s+from|alter\s+table|drop\s+table|truncate\s+table)\s+[\w"`\[]
        5 ^[ \t]*(?i:create)\s+(?i:or\s+replace\s+|temporary\s+|temp\s+|unique\s+)?(?i:table|view|index|database|procedure|trigger|schema)\b
        5 ^[ \t]*(?i:update)\s+[\w."`\[\]]+\s+(?i:set)\s
        4 ^[ \t]*(?i:with)\s+(?i:recursive\s+)?\w+(?:\s*\([^)]*\))?\s+(?i:as)\s*(?:(?i:not\s+)?(?i:materialized)\s*)?\(
        2 ^[ \t]*(?i:select)\s
        3 \b(?i:group\s+by|order\s+by|inner\s+join|left\s+join|having|primary\s+key|not\s+null)\b
        2 \b(?i:where)\s+[\w."`(]+\s*(?:=|<|>|(?i:in|like|is|between|not|exists)\b)
        2 \b(?:VARCHAR|INTEGER|DECIMAL|COUNT\(|SUM\(|AVG\(|MAX\()
        1 ;[ \t]*$
        2 ^[ \t]*--[ \t]
        3 ^[ \t]*(?i:begin|commit|rollback|grant|revoke)\b[^:({=]*;?[ \t]*$
    """,
    "bash": r"""
        6 \A(?:\$ )?(?:sudo|g\+\+|gcc|clang|pip3?|npm|npx|yarn|apt(?:-get)?|brew|git|docker|kubectl|cargo|chmod|mkdir|curl|wget|tar|ssh|scp|find|grep|sed|awk|ls|cd)\s+[-\w./~"'$]
        4 ^\$ \S
        8 \A\#!\s*/\S*\b(?:ba|z|da|k)?sh\b
        4 ^[ \t]*(?:if|while|elif|until)\s+(?:!\s+)?(?:\[\[?\s|\(\(|test\s|read\b|\w+\s+-).*
        3 ^[ \t]*(?:then|fi|done|esac|do)\b[ \t]*(?:[;|<>&\#].*)?$
        4 ;\s*(?:then|do)\b[ \t]*(?:$|\w)
        3 ^[ \t]*for\s+\w+\s+in\s+[^:{]*(?:;\s*do|$)
        3 ^[ \t]*(?:sudo|apt(?:-get)?|grep|awk|sed|find|chmod|chown|mkdir|curl|wget|tar|ls|cd|rm|cp|mv|cat|git|docker|npm|pip|ssh|rsync|xargs|crontab|cut|kill|tail|head|wc|du|df|kubectl|export|ping|ps|g\+\+|gcc|python3?|node|java|javac|go|cargo|make|npx|yarn|brew|systemctl|uname|bash|sh)\s+[-\w./~"'$*|]
        2 ^[ \t]*echo\s+["'$\w]
        2 \$(?:\{?\w+\}?|\(|@|\#)
        3 "\$(?:\{?\w+[^"]*|@|\()"?
        2 \s\|\s*(?:grep|awk|sed|sort|uniq|wc|head|tail|xargs|cut|tr|less)\b
        3 ^[ \t]*\w+\(\)\s*\{?[ \t]*$
        2 ^[A-Za-z_]\w*=(?:["'$]|\S*$)
        2 2>&1|>/dev/null|&>|<<-?\s*['"]?[A-Z]+
        2 ^set\s+-[a-z]
        2 \blocal\s+\w+=
        2 ^alias\s+\w+=|^[ \t]*trap\s
        3 ^ls[ \t]*$|^pwd[ \t]*$
    """,
    "html": r"""
        8 \A\s*<!(?i:doctype)\s
        6 \A\s*<(?i:html|head|body|div|p|form|table|ul|ol|nav|section|header|footer|main|article|button|input|img|a|h[1-6]|span|label|select|svg|style|script|link|meta|iframe|video|audio|picture|dialog|details|fieldset|figure|template|textarea|center|marquee)\b[^>]*>
        4 ^[ \t]*<(?i:div|p|form|table|ul|ol|li|tr|td|h[1-6]|body|head|html|span|a|button|input|label|select|option|nav|section|img|br|hr)\b[^>]*>
        3 </(?i:div|p|form|table|ul|ol|li|tr|td|h[1-6]|body|head|html|span|a|button|label|select|option|nav|section)\s*>
        2 <!--
    """,
    "css": r"""
        5 ^[ \t]*(?:[.\#:*@]?[\w-](?:[\w\-.\#:()>+~*, \t]|\[[^\]\n]*\])*|\*|::?[\w-]+)\s*\{\s*(?:/\*.*?\*/\s*)?(?:--)?[\w-]+\s*:\s*[^;{}]+[;}]
        3 ^[ \t]*(?:--)?[a-z]+(?:-[a-z]+)*\s*:\s*[^;{}\n]+;[ \t]*$
        4 ^[ \t]*@(?:media|keyframes|import|font-face|supports|layer|container)\b
        3 \b(?:background(?:-color)?|font-(?:size|family|weight)|margin(?:-\w+)?|padding|border(?:-radius)?|display|color|width|height|text-align|position|grid-template-\w+|justify-content|align-items)\s*:
        2 \b\d+(?:px|em|rem|vh|vw|%)
        1 \#[0-9a-fA-F]{3,6}\b
    """,
    "php": r"""
        9 <\?php|<\?=
        4 \$\w+\s*(?:=|->|\[|\.=)
        4 ^[ \t]*(?:public\s+|private\s+|protected\s+)?(?:static\s+)?function\s+&?\w*\s*\([^)]*\$\w+
        3 \becho\s+[^;\n]*;
        3 \$this->|->\w+\(
        2 \b(?:array\(|foreach\s*\(\$|isset\(|explode\(|implode\(|strlen\(|count\(\$|mysqli_\w+\(|PDO\b)
        2 \s=>\s
        1 ;[ \t]*$
    """,
    "ruby": r"""
        4 ^[ \t]*def\s+(?:self\.)?\w+[?!=]?(?:\s*\([^)]*\))?(?:[ \t]+\w+(?:,\s*\w+)*)?[ \t]*$
        3 ^[ \t]*end[ \t]*$
        3 ^[ \t]*puts\s
        4 \bdo\s*\|[^|\n]*\|
        4 \{\s*\|[^|\n]*\|
        3 ^[ \t]*require(?:_relative)?\s+['"]
        3 ^[ \t]*(?:attr_(?:accessor|reader|writer)|module\s+[A-Z]\w*|class\s+[A-Z]\w*(?:\s*<\s*[\w:]+)?[ \t]*$)
        3 \.(?:each|each_with_index|select|reject|inject|nil\?|empty\?|to_s|to_i|upcase)\b(?!\()
        2 ^[ \t]*(?:unless|elsif|when)\s
        3 "[^"\n]*\#\{
        2 @\w+\s*=
        1 \bnil\b
        1 =>\s|:\w+
    """,
    "kotlin": r"""
        5 \bfun\s+(?:<[^>]*>\s*)?(?:\w+(?:<[^>]*>)?\.)?\w+\s*\([^)]*\)\s*(?::\s*[\w<>?, .]+)?\s*[{=]
        4 ^[ \t]*(?:data|sealed|enum|open)\s+(?:class|interface)\s+\w+
        3 ^[ \t]*(?:private\s+)?val\s+\w+(?:\s*:\s*[\w<>?, ]+)?\s*(?:=|by\b)
        2 ^[ \t]*var\s+\w+(?:\s*:\s*[\w<>?]+)?\s*=
        3 \b(?:println\(|listOf\(|mapOf\(|mutableListOf\(|when\s*[({]|\?:|it\.\w)
        2 \?\.\w|!!
        3 ^import\s+(?:kotlin|android|java)x?\.[\w.*]+[ \t]*$
    """,
    "swift": r"""
        5 \bfunc\s+\w+(?:<[^>]*>)?\s*\([^)]*\)\s*(?:async\s*)?(?:throws\s*)?(?:->\s*[\w\[\]<>?:, ().]+)?\s*\{
        4 ^import\s+(?:Foundation|UIKit|SwiftUI|Combine|PackageDescription|XCTest)\b
        3 ^[ \t]*(?:let|var)\s+\w+\s*:\s*\[?[A-Z]\w*
        2 ^[ \t]*(?:let|var)\s+\w+\s*=
        4 \b(?:guard\s+(?:let|\w)|if\s+let\s)
        3 \\\(\w
        3 ^[ \t]*(?:extension|protocol|struct|final\s+class|actor|enum)\s+\w+[^;]*\{
        2 \bprint\(|\bnil\b
        2 \bself\.\w|@State\b|@escaping|\binit\(
        2 \bin\s*$
    """,
    "r": r"""
        5 \w\s*<-\s*(?:function\s*\(|[\w"'(-])
        4 \bfunction\s*\([^)]*\)\s*\{?[^;]*$\n(?=[\s\S]*<-)
        4 ^[ \t]*library\(\w+\)
        3 %>%|\|>|%in%|%%
        3 \b(?:data\.frame|ggplot|aes|sapply|lapply|vapply|paste0?|seq_along|tapply|mutate|summari[sz]e)\(
        2 \bc\((?:["'\d]|\w+\s*=)
        2 \b(?:TRUE|FALSE|NULL|NA)\b
        1 ^[ \t]*\#
        2 \w\$\w
    """,
    "perl": r"""
        8 \A\#!\s*/\S*\bperl\b
        5 ^[ \t]*(?:my|our|local)\s+[($@%]
        5 ^[ \t]*use\s+(?:strict|warnings|v?5|[A-Z]\w*(?:::\w+)*)[\w\s.('"/)-]*;
        3 ^[ \t]*sub\s+\w+\s*(?:\([^)]*\)\s*)?\{
        3 =~\s*(?:[msy]|tr|qr)?/
        3 \$_\b|@_\b|\$\w+->[\[{]|@\{?\$|%\$
        2 \bprint\s+(?:STDERR\s+)?["$]
        2 \b(?:foreach|unless|elsif|push\s+@|keys\s+%|chomp|die\s|qw\()
        1 ;[ \t]*$
    """,
    "lua": r"""
        4 ^[ \t]*local\s+(?:function\s+\w|[\w, ]+\s*=|\w+$)
        4 ^[ \t]*(?:local\s+)?function\s+[\w.:]+\s*\([^)]*\)[ \t]*(?!\{)(?:--.*)?$
        3 ^[ \t]*end[,)]*[ \t]*$
        3 \bthen[ \t]*$
        3 \b(?:ipairs|pairs|setmetatable|table\.(?:insert|concat|sort)|string\.(?:format|gsub|rep))\(
        2 ^[ \t]*--[ \t]
        2 ~=|\s\.\.\s
        1 \bnil\b
        2 ^[ \t]*for\s+\w+\s*=\s*[^;]+\bdo\b
    """,
    "yaml": r"""
        4 ^[\w."'-]+:[ \t]*(?:\#.*)?\n(?:[ \t]{1,8}|-[ \t])[\w"'-]
        4 ^[ \t]*-[ \t]+[\w"'.-]+:(?:[ \t]|$)
        3 \A(?:---\n|\#.*\n)?[\w"'-]+:[ \t]+[^{;\n]+\n[\w"'-]+:(?:[ \t]|\n)
        4 ^(?:apiVersion|kind|version|services|jobs|on|stages|steps):
        2 ^[ \t]{2,}[\w-]+:[ \t]+[^;{}()\n]+$
    """,
    "docker": r"""
        6 ^FROM\s+[\w./:$\{\}-]+(?:\s+(?i:as)\s+[\w-]+)?[ \t]*$
        4 ^(?:RUN|COPY|ADD|WORKDIR|ENTRYPOINT|CMD|EXPOSE)\s+["\[\w./$-]
        2 ^(?:ENV|ARG|LABEL|USER|VOLUME|HEALTHCHECK)\s+\S
    """,
    "make": r"""
        5 ^\.(?:PHONY|DEFAULT_GOAL|SUFFIXES)\b
        5 ^[\w./%$(){}-]+(?:[ \t]+[\w./%-]+)*[ \t]*:(?!=)[^=\n]*\n\t\S
        3 \$\((?:CC|CFLAGS|OBJS|SRC|SRCS|wildcard|patsubst|shell|MAKE|CURDIR)\b
        3 \$[@<^]
        2 ^[A-Z_]+\s*(?::|\?|\+)?=
        2 ^(?:ifeq|ifdef|ifneq|endif|include)\b
    """,
    "json": r"""
        6 \A\s*\{\s*"[^"\n]*"\s*:\s*[\["{\dtfn-][\s\S]*\}\s*\Z
        5 \A\s*\[\s*\{\s*"[^"\n]*"\s*:[\s\S]*\]\s*\Z
    """,
    "powershell": r"""
        5 \b(?:Get|Set|New|Remove|Write|Import|Export|Start|Stop|Invoke|Add|Test|Select|Where|ForEach|Sort|Out|ConvertTo|ConvertFrom|Copy|Move|Read|Measure|Join)-[A-Z]\w+
        4 ^[ \t]*function\s+[A-Z]\w+-\w+
        4 ^[ \t]*(?i:param)\s*\(
        3 \[(?:string|int|Parameter|CmdletBinding|switch|bool|datetime)\b[^\]]*\]
        3 \s-(?:eq|ne|gt|lt|like|match|notmatch|replace|contains)\s
        2 \$\w+\s*=|\$_\.
        2 ^[ \t]*foreach\s*\(\$
    """,
    "scala": r"""
        5 \bdef\s+\w+(?:\[[^\]]*\])?(?:\([^)]*\))*\s*:\s*[A-Z][\w\[\], .]*\s*=
        4 ^[ \t]*(?:case\s+class|(?:case\s+)?object|sealed\s+trait|trait)\s+\w+
        3 ^[ \t]*val\s+\w+(?:\s*:\s*[\w\[\], ]+)?\s*=
        3 ^import\s+scala\.
        3 \bcase\s+[^:\n]*=>
        2 \bprintln\(
        2 \b(?:extends\s+App|Seq\(|List\(|Map\(|Option\[|Either\[|Some\()
        3 \bmatch\s*\{|\byield\b
    """,
    "haskell": r"""
        5 ^[a-z]\w*'?\s*::\s*[^:=]+$
        4 ^(?:module\s+[A-Z][\w.]*|import\s+(?:qualified\s+)?[A-Z][\w.]*)
        4 ^data\s+[A-Z]\w*[^{;]*=\s*[A-Z]
        2 ^[a-z]\w*'?(?:\s+[\w\[\](:)_",@]+)*\s*=\s[^;]*$
        3 \bwhere[ \t]*$
        3 ^(?:instance|class|newtype|deriving)\s+[A-Z(]
        2 \s(?:<-|->|<\$>|\$|\.|>>=)\s
        3 ^[ \t]*\|\s[^=\n]+=\s
        3 ^main\s*=\s*
    """,
    "dart": r"""
        5 ^import\s+'(?:dart|package):
        5 \b(?:Widget\s+build|StatelessWidget|StatefulWidget|BuildContext)\b
        4 \bFuture<[\w<>?, ]+>\s+\w+\([^)]*\)\s*async\b
        3 \bvoid\s+main\s*\([^)]*\)\s*(?:async\s*)?(?:\{|=>)
        3 ^[ \t]*(?:final|late)\s+(?:[\w<>?]+\s+)?\w+\s*(?:=|;)
        2 \bprint\('[^']*'\);|'[^'\n]*\$\{?\w
        3 \brequired\s+this\.|^[ \t]*const\s+\w+\(\{
        2 \b(?:List|Map|Set|Iterable|Stream)<[\w<>?, ]+>\s+\w+
    """,
    "regex": r"""
        6 \A/(?:\\.|[^/\n])+/[gimsuy]*\s*\Z
        6 \A\s*\(\?[a-z]+\).*\Z
        6 \A\s*\^.*\$\s*\Z
        4 \A(?=\S*(?:\\[dwsbDWSB]|\[[^\]\s]+\][+*?{]|\(\?[:=!<P]))\S+\Z
    """,
}  # fmt: skip
# Of these languages nothing is known but their marks; no language of the project is mistaken for them.
FOREIGN_MARKS: Final[dict[str, str]] = {
    "toml": r"""
        5 ^\[\[?[\w.-]+\]\]?[ \t]*\n[\w-]+\s*=
        2 ^[\w-]+\s*=\s*(?:"|\d|\[|true|false)
    """,
    "xml": r"""
        9 \A\s*<\?xml\b
        4 \A\s*<[a-z]+:\w+|\sxmlns(?::\w+)?=
    """,
}
