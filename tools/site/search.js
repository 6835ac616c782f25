
// search.html?q=words: sections in which all words occur, those with the words in their title first
const words = (new URLSearchParams(location.search).get("q") || "").toLowerCase().split(/\s+/).filter(Boolean);
const list = document.getElementById("hits");
if (list && words.length) {
  document.querySelector("input[name=q]").value = words.join(" ");
  const count = (text, word) => text.toLowerCase().split(word).length - 1;
  const hits = window.INDEX.map(entry => {
    const scores = words.map(word => 10 * count(entry.title, word) + Math.min(count(entry.text, word), 9));
    return { ...entry, score: scores.every(Boolean) ? scores.reduce((a, b) => a + b) : 0 };
  }).filter(entry => entry.score).sort((a, b) => b.score - a.score);
  document.getElementById("found").textContent = `${hits.length} sections with ${words.join(", ")}`;
  for (const hit of hits) {
    const item = list.appendChild(document.createElement("li"));
    const link = item.appendChild(document.createElement("a"));
    link.href = hit.page + (hit.at ? "#" + hit.at : "");
    link.textContent = hit.title;
    const place = Math.max(0, hit.text.toLowerCase().indexOf(words[0]));
    const start = Math.max(0, place - 80), snippet = hit.text.slice(start, place + 160);
    const note = item.appendChild(document.createElement("p"));
    const at = snippet.toLowerCase().indexOf(words[0]);
    if (at < 0) {
      note.textContent = snippet;
    } else {
      const mark = document.createElement("mark");
      mark.textContent = snippet.slice(at, at + words[0].length);
      note.append((start ? "… " : "") + snippet.slice(0, at), mark, snippet.slice(at + words[0].length) + " …");
    }
  }
}
