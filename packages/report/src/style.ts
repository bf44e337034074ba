/** @file How the page looks. */

/** Colours of text and marks; a role has one in each theme. */
export interface Theme {
  readonly paper: string;
  /** Behind tables and numbers that stand out. */
  readonly panel: string;
  readonly ink: string;
  readonly quiet: string;
  readonly line: string;
  readonly link: string;
  readonly keep: string;
  readonly implant: string;
  readonly prune: string;
  readonly heldOut: string;
}

/**
 * Blue, vermilion, sky blue, orange and bluish green of Okabe and Ito's palette, which people with
 * any kind of colour vision can tell apart (jfly.uni-koeln.de/color), and grey for what is gone.
 */
export const themes: Readonly<Record<"light" | "dark", Theme>> = {
  light: {
    paper: "#ffffff",
    panel: "#f5f7f9",
    ink: "#1c2126",
    quiet: "#5a636d",
    line: "#d9dee3",
    link: "#0a5c92",
    keep: "#0072b2",
    implant: "#d55e00",
    prune: "#8a939c",
    heldOut: "#007a5a",
  },
  dark: {
    paper: "#14181c",
    panel: "#1c2228",
    ink: "#e7eaed",
    quiet: "#a0aab4",
    line: "#343c44",
    link: "#7cc4f0",
    keep: "#56b4e9",
    implant: "#e69f00",
    prune: "#7d8790",
    heldOut: "#2fc79b",
  },
};

function variables(theme: Theme): string {
  return Object.entries(theme)
    .map(([role, colour]) => `--${role}:${colour}`)
    .join(";");
}

export const style = `
:root{color-scheme:light dark;${variables(themes.light)}}
@media (prefers-color-scheme:dark){:root{${variables(themes.dark)}}}
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%;text-size-adjust:100%}
body{margin:0 auto;max-width:70rem;padding:2.5rem 1.5rem 4rem;background:var(--paper);color:var(--ink);font:1rem/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif;font-variant-numeric:tabular-nums}
h1,h2,h3{line-height:1.25;text-wrap:balance}
h1{font-size:clamp(1.5rem,1.1rem + 1.8vw,2.2rem);letter-spacing:-.015em;margin:.2rem 0 .6rem}
h2{font-size:1.4rem;letter-spacing:-.01em;margin:0 0 .8rem}
h3{font-size:1.05rem;margin:2rem 0 .4rem}
h3.small{font-size:.85rem;font-weight:600;margin:0 0 .4rem}
p,ul,.caption{max-width:44rem}
p{margin:0 0 .9rem}
a{color:var(--link)}
:focus-visible{outline:2px solid var(--link);outline-offset:3px;border-radius:2px}
code{font:.88em/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,"Liberation Mono",monospace;overflow-wrap:anywhere}
pre{margin:0 0 1rem;padding:.8rem 1rem;overflow-x:auto;background:var(--panel);border:1px solid var(--line);border-radius:6px}
pre code{overflow-wrap:normal}
pre.wrap{white-space:pre-wrap}
pre.wrap code{overflow-wrap:anywhere}
.option{white-space:nowrap}
section{margin-top:3.2rem;padding-top:1.6rem;border-top:1px solid var(--line)}
.overline,.quiet{color:var(--quiet)}
.overline{font-size:.85rem;margin:0}
.lead{font-size:1.12rem}
nav ul{max-width:none;display:flex;flex-wrap:wrap;gap:.3rem 1.2rem;margin:1.2rem 0 0;padding:0;list-style:none;font-size:.92rem}
.tiles{display:flex;flex-wrap:wrap;gap:1px;margin:1.6rem 0 0;background:var(--line);border:1px solid var(--line);border-radius:8px;overflow:hidden}
.tile{flex:1 1 14rem;padding:1rem 1.2rem 1.1rem;background:var(--panel)}
.tile.wide{flex-basis:100%}
.tile dt{font-size:.85rem;color:var(--quiet)}
.tile dd{margin:.15rem 0 0}
.tile dd>small{margin-top:.3rem}
.big{font-size:1.75rem;font-weight:650;letter-spacing:-.02em;line-height:1.25}
.tile.wide .big{font-size:clamp(1.75rem,1.2rem + 2.4vw,2.7rem)}
.steps{display:flex;flex-wrap:wrap;align-items:end;gap:.4rem 1.1rem}
.steps small,.tile small{display:block;font-size:.82rem;font-weight:400;letter-spacing:0;color:var(--quiet);line-height:1.4}
.arrow{color:var(--quiet);font-weight:400}
.scroll{overflow-x:auto;margin:0 0 .8rem}
table.result{max-width:58rem}
table{border-collapse:collapse;width:100%;font-size:.92rem}
th,td{padding:.42rem .7rem;text-align:right;border-bottom:1px solid var(--line);vertical-align:baseline;white-space:nowrap}
tbody th,.sortable th:first-child{text-align:left;padding-left:0}
th:last-child,td:last-child{padding-right:0}
thead th{font-size:.82rem;font-weight:600;color:var(--quiet);vertical-align:bottom}
tbody th{font-weight:400}
.spanning{text-align:center}
.sortable :is(th,td){padding-top:.25rem;padding-bottom:.25rem}
td small{display:block;color:var(--quiet);font-size:.82rem}
td.bar{width:38%;min-width:5rem;vertical-align:middle}
th button{font:inherit;color:inherit;background:none;border:0;padding:0;cursor:pointer;text-align:inherit}
th[aria-sort] button::after{content:" ▲";font-size:.7em}
th[aria-sort=descending] button::after{content:" ▼"}
.caption{font-size:.9rem;color:var(--quiet)}
.missing{padding:.7rem 1rem;border-left:3px solid var(--line);color:var(--quiet)}
.key{display:flex;flex-wrap:wrap;gap:.2rem 1.4rem;margin:0 0 .9rem;padding:0;list-style:none;font-size:.9rem}
.key svg{width:.9rem;height:.9rem;vertical-align:-.12em;margin-right:.4rem}
.key .dots{stroke-width:8}
.key .implant{stroke-width:7}
.key .hollow{stroke-width:5}
[hidden]{display:none!important}
svg.plot{display:block;overflow:visible}
.plot text{font-size:11px;fill:var(--quiet)}
.plot .grid line{stroke:var(--line)}
.plot .zero{stroke:var(--quiet);stroke-dasharray:2 3}
.reach{fill:transparent}
.mark:hover .reach,.mark.chosen .reach{fill:var(--ink);fill-opacity:.1}
rect.keep{fill:var(--keep)}rect.implant{fill:var(--implant)}rect.prune{fill:var(--prune)}.mark .prune{fill-opacity:.55}
.dense{fill:var(--prune)}
.panels{display:grid;grid-template-columns:repeat(auto-fill,minmax(10.5rem,1fr));gap:1.3rem 1.4rem;align-items:end;margin:1rem 0}
.panel{padding-left:2.7rem;min-width:0;break-inside:avoid}
.panel .plot text{font-size:10px}
.panel-name{display:flex;justify-content:space-between;gap:.6rem;margin:0 0 .15rem -2.7rem;font-size:.8rem;font-weight:600;line-height:1.3}
.panel-name>:first-child{overflow-wrap:anywhere}
.panel-name .quiet{font-weight:400;white-space:nowrap}
.errors,.dots,.hollow{fill:none;vector-effect:non-scaling-stroke}
.errors{stroke-width:1.1;stroke-opacity:.5}
.dots{stroke-width:4;stroke-linecap:round}
.dots.implant{stroke-width:5;stroke-linecap:square}
.hollow{stroke:var(--paper);stroke-width:2;stroke-linecap:round}
:is(.errors,.dots):is(.keep,.score){stroke:var(--keep)}
:is(.errors,.dots).implant{stroke:var(--implant)}
:is(.errors,.dots).prune{stroke:var(--prune)}
.cursor{fill:var(--ink);fill-opacity:.15;stroke:var(--ink);stroke-width:1;pointer-events:none}
.strip{shape-rendering:crispEdges}
.budgets :is(tbody th,td){vertical-align:middle}
.budgets td.bar{width:46%}
.budget{margin:1rem 0;padding:.9rem 1.1rem 1rem;background:var(--panel);border:1px solid var(--line);border-radius:8px}
.budget-head{display:flex;flex-wrap:wrap;align-items:baseline;gap:.1rem .8rem;max-width:none;min-height:1.9rem;margin:0 0 .2rem}
.budget button{font:inherit;font-size:.85rem;color:var(--link);background:none;border:1px solid var(--line);border-radius:5px;padding:.05rem .6rem;cursor:pointer}
.budget input{display:block;width:100%;height:20px;margin:0;appearance:none;background:none;cursor:pointer}
.budget input::-webkit-slider-runnable-track{height:4px;border-radius:2px;background:var(--line)}
.budget input::-moz-range-track{height:4px;border-radius:2px;background:var(--line)}
.budget input::-webkit-slider-thumb{appearance:none;width:20px;height:20px;margin-top:-8px;border:0;border-radius:10px;background:var(--keep)}
.budget input::-moz-range-thumb{width:20px;height:20px;border:0;border-radius:10px;background:var(--keep)}
.ruler{padding:2px 10px 0}
.ruler svg{display:block;overflow:visible}
.ruler line{stroke:var(--prune)}
.ruler text{font-size:11px;fill:var(--quiet)}
.ruler .run{fill:var(--ink);font-weight:600}
.budget dl{display:flex;flex-wrap:wrap;gap:.3rem 1.8rem;margin:.5rem 0 0}
.budget dt{font-size:.82rem;color:var(--quiet)}
.budget dd{margin:0;font-weight:600}
.budget dd small{font-weight:400;color:var(--quiet)}
.chart{padding-left:3rem;min-width:0;margin:1rem 0 1.2rem;break-inside:avoid}
.chart h3{margin-left:-3rem}
.plot .stage{stroke:var(--line)}
.curves{display:grid;grid-template-columns:repeat(auto-fit,minmax(15rem,1fr));gap:0 2rem}
.curve{fill:none;stroke-width:2;vector-effect:non-scaling-stroke;stroke-linejoin:round}
.curve.training{stroke:var(--keep)}.point.training{fill:var(--keep)}.plot .end.training{fill:var(--keep)}
.curve.held-out{stroke:var(--heldOut);stroke-dasharray:5 3}.point.held-out{fill:var(--heldOut)}.plot .end.held-out{fill:var(--heldOut)}
.curve.rate{stroke:var(--quiet)}.point.rate{fill:var(--quiet)}
.plot .end{font-size:12px;font-weight:600}
.curves .chart:nth-child(2){padding-right:4.2rem}
.heads{max-width:44rem}
.heads .prune{fill-opacity:1}
.heads .gone{stroke:var(--ink);stroke-width:1.2;stroke-opacity:.7}
.heads .frame{fill:none;stroke:var(--implant);stroke-width:2}
.heads .rank{fill:var(--ink);font-size:.75rem;pointer-events:none}
.latencies{display:grid;grid-template-columns:repeat(auto-fit,minmax(20rem,1fr));gap:0 2rem}
.latencies .chart{padding-left:3.6rem}
.latencies .chart h3{margin-left:-3.6rem}
.plot .row{font-size:12px;fill:var(--ink)}
.whisker line{stroke:var(--ink);stroke-width:1.6}
.latencies rect{fill-opacity:.6}
.facts{columns:17rem;column-gap:2rem;margin:0 0 1rem}
.facts>div{break-inside:avoid;padding-bottom:1.2rem}
.facts dl{display:grid;grid-template-columns:auto 1fr;gap:.15rem 1rem;margin:0;font-size:.92rem;align-content:start}
.facts dt{color:var(--quiet)}
.facts dd{margin:0;overflow-wrap:anywhere}
details{margin:0 0 1rem}
summary{cursor:pointer;color:var(--link);font-size:.92rem}
details[open] summary{margin-bottom:.6rem}
footer{margin-top:3.2rem;padding-top:1.2rem;border-top:1px solid var(--line);font-size:.88rem;color:var(--quiet)}
#tip{position:fixed;z-index:1;max-width:20rem;padding:.35rem .6rem;font-size:.82rem;line-height:1.35;color:var(--paper);background:var(--ink);border-radius:5px;pointer-events:none;white-space:pre-line}
@media (min-height:40rem){
.budget{position:sticky;top:0;z-index:1}
.budgets :is(.marks,[data-strip],button){scroll-margin-top:17rem}
}
@media (max-width:40rem){
body{padding:1.5rem 1rem 3rem}
.panels{grid-template-columns:repeat(auto-fill,minmax(9.5rem,1fr));gap:1.2rem 1rem}
table{font-size:.82rem}
th,td{padding-left:.3rem;padding-right:.3rem}
th,td small{white-space:normal}
.roomy,th:has(.roomy){display:none}
td.bar,.budgets td.bar{min-width:3rem;width:24%}
.budget{padding:.6rem .8rem .7rem}
.budget dl{gap:.2rem 1rem}
.latencies{grid-template-columns:1fr}
.arrow{display:none}
.steps{display:grid;grid-template-columns:repeat(3,1fr);align-items:start;gap:.6rem}
.tile.wide .big{font-size:1.4rem}
}
@media print{
body{max-width:none;padding:0;font-size:10pt}
nav,summary,#tip,#budget-reset,.budget input,.ruler{display:none}
.budget{position:static}
section{margin-top:1.6rem;padding-top:1rem}
h2,h3,.panel-name{break-after:avoid}
tr,.tile,pre{break-inside:avoid}
*{print-color-adjust:exact;-webkit-print-color-adjust:exact}
}
`;
